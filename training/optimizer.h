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

  /// What to scale the gradients by so that their global norm is at most `largest` (0: no limit),
  /// computed where the parameters are. `report`, F64 [3], becomes the loss (the sum of `losses`,
  /// F64), the norm and the factor. That is 0 where loss or norm is not finite, and then in every
  /// later call until `forget_bad_updates`.
  void clip(const Tensor& losses, double largest, const Tensor& report);
  void forget_bad_updates() { latch_.fill(0); }
  /// [1] I32: 1 from an update that went bad on, else 0.
  const Tensor& has_stopped() const { return latch_; }
  /// What differs between updates: the rates of AdamWArgs for number `step`, counted from 1.
  std::vector<double> rates(int64_t step, double learning_rate) const;
  /// An update with these `rates`, F64 [3], and every gradient multiplied by `factor`, F64 [1], on
  /// the parameters' device; 0 leaves weights and moments as they are.
  void update(const Tensor& rates, const Tensor& factor);
  void clear_gradients();

  /// Where the parameters are.
  Device device() const { return device_; }
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
  Device device_;
  Tensor squares_;  // F64, of each parameter's gradient
  Tensor latch_;    // of has_stopped
  double beta1_, beta2_, epsilon_, weight_decay_;
};

}  // namespace regla
