#pragma once

#include <algorithm>
#include <cstdint>

#include "backends/cpu/triangular.h"
#include "backends/cpu/vector_math.h"

// The algebra of one chunk of C tokens. With D_ts = the decay of every component from after token s
// through token t (a product of factors in [0, 1], so nothing can overflow and a factor of exactly
// 0 is an ordinary number), a chunk needs three operations on an axis of N components:
//
//     scores          W_ts    = sum_n left_t[n] D_ts[n] right_s[n]       s <= t
//     mix             out_t  += sum_{s<=t} W_ts D_ts * right_s
//     mix_transposed  out_s  += sum_{t>=s} W_ts D_ts * left_t
//
// Forward: A = scores(q, k) on the key axis, o = mix(A, u) on the value axis. Backward: the same
// A, dA = scores(d_o, u) on the value axis, d_q = mix(dA, k), d_k = mix_transposed(dA, q) on the
// key axis and d_u = mix_transposed(A, d_o) on the value axis.
//
// Between blocks of kBlock tokens D_ts splits at the boundary before the later block into two
// factors, both at most 1, which turns the sums into matrix products; inside a block the decayed
// row is carried along token by token.
namespace regla::cpu {

/// The decays of one axis (N components) over a chunk of at most C tokens.
template <class T>
struct Axis {
  int64_t N = 0;
  bool present = false;  // absent: every decay is 1 and no buffer is read
  T* factor = nullptr;   // [C, N] decay of each token
  T* prefix = nullptr;   // [C, N] product from the first token of the block through this one
  T* suffix = nullptr;   // [C, N] product over the tokens of the block after this one
  T* block = nullptr;    // [blocks, N] product over a whole block
  T* through = nullptr;  // [N] running product over blocks
  T* rows = nullptr;     // [C, N] scratch
  T* other = nullptr;    // [C, N] scratch
  T* turned = nullptr;   // [N, C] scratch

  static int64_t scratch(int64_t N, int64_t C) { return 7 * N * (C + kBlock) + N; }

  void allocate(int64_t size, bool decays, int64_t C, Arena<T>& arena) {
    N = size;
    present = decays;
    factor = arena.take(C * N);
    prefix = arena.take(C * N);
    suffix = arena.take(C * N);
    block = arena.take((C / kBlock + 1) * N);
    through = arena.take(N);
    rows = arena.take(C * N);
    other = arena.take(C * N);
    turned = arena.take(C * N);
  }

  /// From the factors of C tokens, the products inside blocks.
  void multiply_up(int64_t C) {
    for (int64_t p = 0; p < C; p += kBlock) {
      const int64_t end = std::min(C, p + kBlock);
      std::copy_n(factor + p * N, N, prefix + p * N);
      for (int64_t t = p + 1; t < end; ++t) {
        for (int64_t n = 0; n < N; ++n)
          prefix[t * N + n] = prefix[(t - 1) * N + n] * factor[t * N + n];
      }
      std::fill_n(suffix + (end - 1) * N, N, T(1));
      for (int64_t s = end - 2; s >= p; --s) {
        for (int64_t n = 0; n < N; ++n) {
          suffix[s * N + n] = suffix[(s + 1) * N + n] * factor[(s + 1) * N + n];
        }
      }
      std::copy_n(prefix + (end - 1) * N, N, block + p / kBlock * N);
    }
  }

  /// Rows [0, p) of x, each decayed through token p - 1; p is a block boundary or the chunk's end.
  /// Afterwards `through` is the decay of everything before the chunk. Linear and diagonal, so the
  /// same call carries gradients back. Returns x itself where nothing decays.
  const T* decayed_to(int64_t p, const T* x, T* out) {
    if (!present) return x;
    std::fill_n(through, N, T(1));
    for (int64_t first = (p + kBlock - 1) / kBlock * kBlock - kBlock; first >= 0; first -= kBlock) {
      for (int64_t s = first; s < std::min(p, first + kBlock); ++s) {
        for (int64_t n = 0; n < N; ++n)
          out[s * N + n] = x[s * N + n] * suffix[s * N + n] * through[n];
      }
      for (int64_t n = 0; n < N; ++n) through[n] *= block[first / kBlock * N + n];
    }
    return out;
  }

  /// All C rows of x, each decayed from before the chunk through its own token.
  const T* decayed_from_start(int64_t C, const T* x, T* out) {
    if (!present) return x;
    std::fill_n(through, N, T(1));
    for (int64_t first = 0; first < C; first += kBlock) {
      for (int64_t t = first; t < std::min(C, first + kBlock); ++t) {
        for (int64_t n = 0; n < N; ++n)
          out[t * N + n] = x[t * N + n] * prefix[t * N + n] * through[n];
      }
      for (int64_t n = 0; n < N; ++n) through[n] *= block[first / kBlock * N + n];
    }
    return out;
  }

  T decay_over_chunk(int64_t n) const { return present ? through[n] : T(1); }
};

template <class T>
void multiply_rows(int64_t count, const T* x, const T* y, T* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = x[i] * y[i];
}

/// W[C, C], lower triangle; the rest of the diagonal blocks is set to 0.
template <class T>
void scores(int64_t C, const T* left, const T* right, Axis<T>& axis, T* W) {
  const int64_t N = axis.N;
  if (!axis.present) {
    transpose(C, N, right, N, axis.turned);
    lower_product(C, N, left, axis.turned, W);
    return;
  }
  for (int64_t p = 0; p < C; p += kBlock) {
    const int64_t rows = std::min(kBlock, C - p);
    T* block = W + p * C;
    for (int64_t t = 0; t < rows; ++t) std::fill_n(block + t * C, p + rows, T(0));
    multiply_rows(rows * N, left + p * N, axis.prefix + p * N, axis.other);
    transpose(p, N, axis.decayed_to(p, right, axis.rows), N, axis.turned);
    small_gemm(rows, p, N, View<T>{axis.other, N}, axis.turned, p, block, C);
    for (int64_t s = p; s < p + rows; ++s) {
      T* decayed = axis.rows;
      std::copy_n(right + s * N, N, decayed);
      for (int64_t t = s; t < p + rows; ++t) {
        T sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t n = 0; n < N; ++n) sum += left[t * N + n] * decayed[n];
        W[t * C + s] = sum;
        if (t + 1 == p + rows) break;
        for (int64_t n = 0; n < N; ++n) decayed[n] *= axis.factor[(t + 1) * N + n];
      }
    }
  }
}

template <class T>
void mix(int64_t C, const T* W, const T* right, Axis<T>& axis, T* out) {
  const int64_t N = axis.N;
  if (!axis.present) return multiply_lower(C, N, W, right, out);
  for (int64_t p = 0; p < C; p += kBlock) {
    const int64_t rows = std::min(kBlock, C - p);
    std::fill_n(axis.other, rows * N, T(0));
    small_gemm(rows, N, p, View<T>{W + p * C, C}, axis.decayed_to(p, right, axis.rows), N,
               axis.other, N);
    for (int64_t i = 0; i < rows * N; ++i) out[p * N + i] += axis.prefix[p * N + i] * axis.other[i];
    for (int64_t s = p; s < p + rows; ++s) {
      T* decayed = axis.rows;
      std::copy_n(right + s * N, N, decayed);
      for (int64_t t = s; t < p + rows; ++t) {
        const T w = W[t * C + s];
        for (int64_t n = 0; n < N; ++n) out[t * N + n] += w * decayed[n];
        if (t + 1 == p + rows) break;
        for (int64_t n = 0; n < N; ++n) decayed[n] *= axis.factor[(t + 1) * N + n];
      }
    }
  }
}

template <class T>
void mix_transposed(int64_t C, const T* W, const T* left, Axis<T>& axis, T* out) {
  const int64_t N = axis.N;
  if (!axis.present) return multiply_lower_transposed(C, N, W, left, out);
  for (int64_t p = 0; p < C; p += kBlock) {
    const int64_t rows = std::min(kBlock, C - p);
    multiply_rows(rows * N, left + p * N, axis.prefix + p * N, axis.other);
    T* earlier = axis.turned;  // [p, N]
    std::fill_n(earlier, p * N, T(0));
    small_gemm(p, N, rows, transposed(W + p * C, C), axis.other, N, earlier, N);
    axis.decayed_to(p, earlier, axis.rows);
    for (int64_t i = 0; i < p * N; ++i) out[i] += axis.rows[i];
    // From the block's end: sum <- (sum + W_ts left_t) * factor_t.
    for (int64_t s = p; s < p + rows; ++s) {
      T* sum = axis.rows;
      std::fill_n(sum, N, T(0));
      for (int64_t t = p + rows - 1; t > s; --t) {
        const T w = W[t * C + s];
        for (int64_t n = 0; n < N; ++n) {
          sum[n] = (sum[n] + w * left[t * N + n]) * axis.factor[t * N + n];
        }
      }
      const T w = W[s * C + s];
      for (int64_t n = 0; n < N; ++n) out[s * N + n] += sum[n] + w * left[s * N + n];
    }
  }
}

}  // namespace regla::cpu
