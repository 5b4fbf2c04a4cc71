#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "backends/copies.h"
#include "backends/kernels.h"
#include "tests/bfloat16.h"
#include "tests/catch.h"
#include "tests/gpu.h"
#include "tests/support.h"

// A GPU's kernels beside the CPU's.
namespace regla::test {

/// A call of kernels with its inputs and what its results are written over, in F32 or I32. One
/// letter for each says what it is where activations are narrow: A, BF16; S, F32; D, F64 always;
/// and anything for I32.
struct KernelCase {
  std::string name, in_types;
  Tensors in;
  std::string out_types;
  Tensors out;
  std::function<void(const KernelTable&, const Tensors& in, const Tensors& out)> call;
  double tolerance = 2e-6;         // of F32, and of what stays F32 where activations are narrow
  double narrow_tolerance = 4e-3;  // of results in BF16, rounded once: by up to 2^-8 of the value
  double narrow_sums = 0;          // of F32 results of narrow inputs, if it is not `tolerance`
  double exact_tolerance = 1e-11;  // of F64
  double least = 0;                // the size of terms that results may cancel from
  // Of narrow inputs where operands of products are rounded on the way: the bound of
  // check_rounded, in place of the two above.
  double rounded = 0;
};

/// `x` as a tensor of the letter is where activations are of type A.
inline Tensor as_type(const Tensor& x, char letter, DType A) {
  if (!x.defined() || x.dtype() == DType::I32) return x;
  if (letter == 'D') return converted(x, DType::F64);
  if (A == DType::F64) return converted(x, DType::F64);
  return letter == 'A' ? converted(x, A) : x;
}

/// What the CPU computes with in its place: all F32 where the GPU has BF16.
inline Tensor widened(const Tensor& x) {
  return x.defined() && x.dtype() == DType::BF16 ? converted(x, DType::F32) : x;
}

/// Runs the case on the GPU with activations of type A, on the CPU with the same numbers, and
/// compares all results.
inline void check_case(const KernelCase& c, DType A, Device device) {
  Tensors gpu_in, cpu_in, gpu_out, cpu_out;
  const auto place = [&](const Tensor& x, char letter, Tensors& there, Tensors& here) {
    const Tensor typed = as_type(x, letter, A);
    there.push_back(typed.defined() ? typed.clone().on(device) : typed);
    const Tensor wide = widened(typed);
    here.push_back(wide.defined() ? wide.clone() : wide);
  };
  REQUIRE(c.in.size() == c.in_types.size());
  REQUIRE(c.out.size() == c.out_types.size());
  for (size_t i = 0; i < c.in.size(); ++i) place(c.in[i], c.in_types[i], gpu_in, cpu_in);
  for (size_t i = 0; i < c.out.size(); ++i) place(c.out[i], c.out_types[i], gpu_out, cpu_out);
  c.call(kernels(device), gpu_in, gpu_out);
  c.call(kernels(Device{}), cpu_in, cpu_out);
  const double terms = std::max(largest_of(cpu_out), c.least);
  for (size_t i = 0; i < c.out.size(); ++i) {
    if (!c.out[i].defined()) continue;
    const bool is_narrow = gpu_out[i].dtype() == DType::BF16;
    INFO(c.name << ", " << name_of(A) << ", result " << i);
    if (A == DType::BF16 && c.rounded > 0) {
      check_rounded(gpu_out[i].on(Device{}), cpu_out[i], c.rounded);
      continue;
    }
    double tolerance = c.tolerance;
    if (A == DType::F64) tolerance = std::min(c.tolerance, c.exact_tolerance);
    if (A == DType::BF16 && c.narrow_sums > 0) tolerance = c.narrow_sums;
    if (is_narrow) tolerance = c.narrow_tolerance;
    CHECK(relative_error(gpu_out[i].on(Device{}), cpu_out[i], terms) <= tolerance);
  }
}

/// The same in F32, F64 and BF16.
inline void check_case(const KernelCase& c, Device device) {
  for (const DType A : {DType::F32, DType::F64, DType::BF16}) check_case(c, A, device);
}

/// The type of sums where activations have that of x.
inline DType sums_of(const Tensor& x) { return x.dtype() == DType::BF16 ? DType::F32 : x.dtype(); }

/// Fresh memory beside x, in the type of its sums.
inline Tensor beside(const Tensor& x, const Shape& shape) {
  return Tensor::empty(shape, sums_of(x), x.device());
}

struct HeadSizes {
  int64_t B, T, H, K, V;
};

/// Lengths around those of a segment, and sizes that no warp likes.
inline const std::vector<HeadSizes> kHeadSizes = {{2, 1, 3, 4, 5},     {1, 63, 2, 16, 16},
                                                  {2, 65, 3, 33, 20},  {1, 130, 2, 64, 64},
                                                  {1, 70, 2, 10, 130}, {1, 40, 1, 384, 48}};

/// The memory of a gradient as a kernel of rows takes it: rows of the inner axis, or [B, T, H, K]
/// as rows of all heads of a token.
inline Tensor as_rows(const Tensor& x) {
  return x.rank() == 0 ? x.reshape({1, 1}) : x.reshape({x.numel() / x.dim(-1), x.dim(-1)});
}
inline Tensor tokens_of(const Tensor& x) {
  return x.reshape({x.dim(0) * x.dim(1), x.dim(2) * x.dim(3)});
}

inline Tensor floats(const Shape& shape, uint64_t seed, double deviation = 1) {
  return normal_tensor(shape, DType::F32, seed, deviation);
}

}  // namespace regla::test
