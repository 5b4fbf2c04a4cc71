#pragma once

#include <string>
#include <vector>

#include "backends/copies.h"
#include "core/tensor.h"

namespace regla {

/// What a weight does: weight decay, copies for products and FLOPs follow from it.
enum class Role {
  Matrix,      ///< tokens are multiplied with it (`linear`)
  HeadMatrix,  ///< the vectors of heads are (`head_linear`)
  Bias,        ///< it is added to the rows of such a product
  Table,       ///< rows are looked up: an embedding
  Vector,      ///< gains of norms, and other numbers that enter one by one
};

/// Whether a weight is a factor of products. Weight decay acts on those alone.
constexpr bool is_matrix(Role role) { return role == Role::Matrix || role == Role::HeadMatrix; }
/// Whether products read it.
constexpr bool is_operand(Role role) { return is_matrix(role) || role == Role::Bias; }

/// A weight that lives across training steps, with its gradient. Layers own their parameters; the
/// name is the same in code, configuration and checkpoint.
struct Parameter {
  std::string name;
  Tensor value;          ///< the master, S (backends/kernels.h): what is trained and saved
  Tensor copy = {};      ///< the same rounded to A, what products read; undefined: they read value
  Tensor gradient = {};  ///< S
  Role role = Role::Vector;
  /// True until a backward pass writes the gradient: the first write makes it, later ones add.
  bool gradient_empty = true;

  /// Makes or renews the copy; none where the value is of that type.
  void keep_copy(DType activations) {
    copy = activations == value.dtype() ? Tensor{} : converted(value, activations);
  }
  /// What products read.
  const Tensor& factor() const { return copy ? copy : value; }
  /// Gives the memory back: while the next step computes forward, activations may have it.
  void clear_gradient() {
    gradient = {};
    gradient_empty = true;
  }
};

using ParameterList = std::vector<Parameter*>;

}  // namespace regla
