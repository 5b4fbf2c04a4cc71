#pragma once

#include <string>
#include <vector>

#include "core/tensor.h"

namespace regla {

/// A weight that lives across training steps, with its gradient. Layers own their parameters; the
/// name is the same in code, configuration and checkpoint.
struct Parameter {
  std::string name;
  Tensor value;
  Tensor gradient;
  /// True until a backward pass writes the gradient: the first write makes it, later ones add.
  bool gradient_empty = true;
  /// Whether weight decay applies: not to biases, norms and embeddings.
  bool decay = true;
  /// Whether it is a matrix that tokens are multiplied with (`linear`): such weights may be stored
  /// in BF16 for inference.
  bool multiplies = false;

  /// Gives the memory back: while the next step computes forward, activations may have it.
  void clear_gradient() {
    gradient = {};
    gradient_empty = true;
  }
};

using ParameterList = std::vector<Parameter*>;

}  // namespace regla
