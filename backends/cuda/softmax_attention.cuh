#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "backends/cuda/block.cuh"
#include "backends/cuda/elements.cuh"
#include "backends/kernels.h"

// Causal softmax attention, a warp per query (or, for the gradients of keys and values, per key)
// and 32 partners at a time, which the warps of a block share: for any sizes, and what every faster
// kernel is compared with.
namespace regla::cuda {

constexpr int kAttentionWarps = 8, kPartners = 32;

/// Who sees whom.
struct AttentionSizes {
  int64_t steps, length, H, K, V, window;
  const int32_t* first;  // [B, T] or null

  explicit AttentionSizes(const SoftmaxAttentionArgs& args)
      : steps(args.q.dim(1)),
        length(args.k.dim(1)),
        H(args.q.dim(2)),
        K(args.q.dim(3)),
        V(args.v.dim(3)),
        window(args.window),
        first(args.first ? args.first.data<int32_t>() : nullptr) {}

  __device__ int64_t query_row(int64_t n, int64_t t) const {
    return (n / H * steps + t) * H + n % H;
  }
  __device__ int64_t key_row(int64_t n, int64_t s) const {
    return (n / H * length + s) * H + n % H;
  }
  /// Keys [begin, end) are what query t sees.
  __device__ int64_t end(int64_t t) const { return length - steps + t + 1; }
  __device__ int64_t begin(int64_t n, int64_t t) const {
    const int64_t lowest = window > 0 && end(t) > window ? end(t) - window : 0;
    if (first == nullptr) return lowest;
    const int64_t document = first[n / H * steps + t];
    return document > lowest ? document : lowest;
  }
};

template <class S>
struct AttentionInputs : AttentionSizes {
  Elements<S> q, k, v;
  S scale;

  explicit AttentionInputs(const SoftmaxAttentionArgs& args)
      : AttentionSizes(args), q(args.q), k(args.k), v(args.v), scale(static_cast<S>(args.scale)) {}
};

/// Rows [0, count) of `size` elements from x, `pitch` apart there and `size + 1` here, so that
/// lanes that read different rows meet different banks.
template <class S>
__device__ void load_rows(const Elements<S>& x, int64_t start, int64_t pitch, int64_t count,
                          int64_t size, S* to) {
  for (int64_t i = threadIdx.x; i < count * size; i += blockDim.x) {
    to[i / size * (size + 1) + i % size] = x[start + i / size * pitch + i % size];
  }
}

template <class S>
__device__ S warp_max(S x) {
  for (int offset = 16; offset > 0; offset /= 2) {
    const S other = __shfl_xor_sync(0xffffffffu, x, offset);
    x = other > x ? other : x;
  }
  return x;
}

}  // namespace regla::cuda
