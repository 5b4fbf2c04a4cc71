#pragma once

#include <initializer_list>
#include <optional>
#include <utility>

#include "autograd/ops.h"
#include "backends/kernels.h"
#include "core/check.h"

// What the op files share.
namespace regla {

/// Applies an op that was built with its settings.
template <class O>
Vars apply(O op, const Vars& in) {
  return apply(std::unique_ptr<Op>(std::make_unique<O>(std::move(op))), in);
}

inline void check_same(const char* op, const char* what, const Var& x, const Shape& shape,
                       DType dtype) {
  check(x.defined() && x.shape() == shape && x.value.dtype() == dtype, "[", op, "] expected ", what,
        " ", name_of(dtype), " ", shape, ", got ",
        x.defined() ? std::string(name_of(x.value.dtype())) + " " + x.shape().text() : "nothing");
}

/// Of the type of sums beside activations of that type.
inline void check_sum(const char* op, const char* what, const Var& x, const Shape& shape,
                      DType activations) {
  check_same(op, what, x, shape, sum_type(activations));
}

/// Of the type of the result that it is added to, or of that of sums.
inline void check_bias(const char* op, const Var& x, const Shape& shape, DType result) {
  const bool is_rounded = x.defined() && x.value.dtype() == result;
  check_same(op, "bias", x, shape, is_rounded ? result : sum_type(result));
}

/// In the precision of `like`: of the type of activations or of sums.
inline void check_either(const char* op, const char* what, const Var& x, const Shape& shape,
                         DType like) {
  const bool fits = x.defined() && sum_type(x.value.dtype()) == sum_type(like);
  check_same(op, what, x, shape, fits ? x.value.dtype() : like);
}

/// The type that was asked for, or that of the input where none was.
inline DType type_of_output(const char* op, std::optional<DType> out, const Var& x) {
  const DType like = x.value.dtype();
  check(!out || sum_type(*out) == sum_type(like), "[", op, "] cannot give ", name_of(*out),
        " from ", name_of(like));
  return out.value_or(like);
}

/// Storage in BF16 is for inference: an Error where a gradient would have to pass.
inline void check_no_gradient(const char* op, std::initializer_list<Var> inputs) {
  for (const Var& input : inputs) {
    check(input.index < 0, "[", op, "] weights in BF16 are for inference, they have no gradients");
  }
}

/// A matrix that x is multiplied with: of the type of x, or stored in BF16 beside F32.
inline void check_weight(const char* op, const Var& x, const Var& weight, const Shape& shape) {
  const bool is_stored = weight.value.dtype() == DType::BF16 && x.value.dtype() == DType::F32;
  if (is_stored) check_no_gradient(op, {x, weight});
  check_same(op, "weight", weight, shape, is_stored ? DType::BF16 : x.value.dtype());
}

inline void check_float(const char* op, const char* what, const Var& x) {
  check(x.defined() && x.value.dtype() != DType::I32, "[", op, "] expected ", what,
        " of a float type, got ", x.defined() ? name_of(x.value.dtype()) : "nothing");
}

inline void check_rank(const char* op, const char* what, const Var& x, int rank) {
  check_float(op, what, x);
  check(x.value.rank() == rank, "[", op, "] expected ", what, " with ", rank, " axes, got ",
        x.shape());
}

inline void check_inner(const char* op, const char* what, const Var& x) {
  check_float(op, what, x);
  check(x.value.rank() >= 1 && x.dim(-1) > 0, "[", op, "] expected ", what,
        " with a non-empty inner axis, got ", x.shape());
}

/// Optional I32 masks and positions [B, T].
inline void check_indices(const char* op, const char* what, const Tensor& x, const Shape& shape) {
  check(x.dtype() == DType::I32 && x.shape() == shape, "[", op, "] expected ", what, " I32 ", shape,
        ", got ", name_of(x.dtype()), " ", x.shape());
}

/// How the features of x [B, T, H, K] turn.
inline void check_rotation(const char* op, const Var& x, const Rotation& rotation) {
  const int64_t rotary = rotation.rotary;
  if (rotary != 0) check_indices(op, "positions", rotation.positions, {x.dim(0), x.dim(1)});
  check(rotary >= 0 && rotary % 2 == 0 && rotary <= x.dim(3), "[", op,
        "] expected an even number of rotary features up to ", x.dim(3), ", got ", rotary);
}

/// Rows of the inner axis.
inline Tensor as_rows(const Tensor& x) {
  const int64_t inner = x.dim(-1);
  return x.reshape({inner == 0 ? 0 : x.numel() / inner, inner});
}

inline const KernelTable& kernels_of(const Tensor& x) { return kernels(x.device()); }

}  // namespace regla
