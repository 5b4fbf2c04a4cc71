#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "autograd/parameter.h"
#include "training/configuration.h"

namespace regla {

/// AdamW (Loshchilov and Hutter 2019) over the parameters of a model, which must outlive it. Decay
/// is decoupled and acts on matrices only. Copies for products are renewed with their values.
class AdamW {
 public:
  AdamW(const ParameterList& parameters, const TrainingConfig& config);

  /// The global norm of the gradients of all parameters.
  double gradient_norm() const;
  /// Update number `step`, counted from 1, with every gradient multiplied by `gradient_scale`.
  void update(int64_t step, double learning_rate, double gradient_scale);
  void clear_gradients();

  const ParameterList& parameters() const { return parameters_; }
  /// Calls `f(name, tensor)` for every moment, `m.<parameter>` and `v.<parameter>`, to save it or
  /// read it back.
  void for_each(const std::function<void(const std::string&, Tensor&)>& f);

 private:
  struct Moments {
    Tensor m, v;
  };

  ParameterList parameters_;
  std::vector<Moments> moments_;
  double beta1_, beta2_, epsilon_, weight_decay_;
};

/// The factor that brings a gradient of norm `norm` down to `largest` (0: no limit).
constexpr double clip_factor(double norm, double largest) {
  return largest > 0 && norm > largest ? largest / norm : 1;
}

}  // namespace regla
