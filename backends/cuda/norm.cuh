#pragma once

#include <cstdint>
#include <type_traits>

#include "backends/cuda/dropout.cuh"
#include "backends/cuda/elements.cuh"
#include "backends/kernels.h"

// Lines: the G rows of a norm's x that meet all of gain once, which a warp or a block loads at
// once.
namespace regla::cuda {

/// Calls `f` with how often each of `lanes` threads loads W elements of a line, once for up to 8,
/// 16, 24 or 32 of them; false where that is no line.
template <int W, class F>
bool for_line_loads(int64_t columns, int64_t lanes, F&& f) {
  constexpr int kLoads = 8 / W;  // of 8 elements
  if (columns % (lanes * 8) != 0) return false;
  switch (columns / (lanes * 8)) {
    case 1:
      f(std::integral_constant<int, kLoads>{});
      return true;
    case 2:
      f(std::integral_constant<int, 2 * kLoads>{});
      return true;
    case 3:
      f(std::integral_constant<int, 3 * kLoads>{});
      return true;
    case 4:
      f(std::integral_constant<int, 4 * kLoads>{});
      return true;
    default:
      return false;
  }
}

/// Threads that share a line of so many columns.
inline int lanes_of_line(int64_t columns) { return columns > 32 * 32 ? 256 : 32; }

/// Whether the heads' rows are parts of a warp's loads of `kWidest` elements.
inline bool are_heads(const NormArgs& args) {
  const int64_t N = args.x.dim(-1), R = args.x.numel() / N, G = args.gain.numel() / N;
  return args.x.dtype() == DType::BF16 && N % kWidest == 0 && 32 % (N / kWidest) == 0 &&
         R % G == 0 && !args.bias.defined() && are_aligned<kWidest>(args.x, args.gain);
}

/// norm_backward, and in the same pass the gradient of the branch that came to the norm's x by
/// dropout, whose mask dropout_norm kept; false where rows are no lines of this kind or nobody
/// wants all of it, and nothing happened.
bool norm_branch_backward(const NormArgs& norm, const DropoutNormResult& forward,
                          const DropoutMask<float>& mask, const DropoutNormGradients& gradients);

}  // namespace regla::cuda
