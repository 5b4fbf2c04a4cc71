#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>

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
  T* through = nullptr;  // [N] running product over blocks; 1 where nothing decays
  T* rows = nullptr;     // [C, N] scratch
  T* other = nullptr;    // [C, N] scratch
  T* turned = nullptr;   // [N, C] scratch, at least [N, kBlock]

  static int64_t scratch(int64_t N, int64_t C) { return 7 * N * (C + kBlock) + N; }

  void allocate(int64_t size, bool decays, int64_t C, Arena<T>& arena) {
    N = size;
    present = decays;
    factor = arena.take(C * N);
    prefix = arena.take(C * N);
    suffix = arena.take(C * N);
    block = arena.take((C / kBlock + 1) * N);
    through = arena.take(N);
    std::fill_n(through, N, T(1));
    rows = arena.take(C * N);
    other = arena.take(C * N);
    turned = arena.take((C + kBlock) * N);
  }

  /// From the factors of C tokens, the products inside blocks.
  void multiply_up(int64_t C) {
    for (int64_t p = 0; p < C; p += kBlock) {
      const int64_t end = std::min(C, p + kBlock);
      by_columns<T>(N, [&](auto columns, int64_t n) {
        using V = typename decltype(columns)::type;
        V product = load<V>(factor + p * N + n);
        store(prefix + p * N + n, product);
        for (int64_t t = p + 1; t < end; ++t) {
          product *= load<V>(factor + t * N + n);
          store(prefix + t * N + n, product);
        }
        store(block + p / kBlock * N + n, product);
        product = V{} + T(1);
        for (int64_t s = end - 1; s > p; --s) {
          store(suffix + s * N + n, product);
          product *= load<V>(factor + s * N + n);
        }
        store(suffix + p * N + n, product);
      });
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
};

template <class T>
void multiply_rows(int64_t count, const T* x, const T* y, T* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = x[i] * y[i];
}

template <class T>
void add_products(int64_t count, const T* x, const T* y, T* out) {
  for (int64_t i = 0; i < count; ++i) out[i] += x[i] * y[i];
}

/// f(i) for i in [begin, end), unrolled where the bounds are constants. (Unrolling a loop whose
/// bounds are not would only cost time to compile.)
template <bool kUnrolled, class F>
[[gnu::always_inline]] inline void each(int begin, int end, F&& f) {
  if constexpr (kUnrolled) {
#pragma GCC unroll 16
    for (int i = begin; i < end; ++i) f(i);
  } else {
    for (int i = begin; i < end; ++i) f(i);
  }
}

/// A vector of 32 bytes on every processor: the scores of a block are a triangle, of which a longer
/// one wastes more.
template <class T>
using ShortVector = typename VectorOf<T, 32>::type;
template <class T>
constexpr int kShort = sizeof(ShortVector<T>) / sizeof(T);

/// Masks: row i chooses the first i elements.
template <class T>
constexpr auto kFirst = [] {
  using Mask = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  std::array<std::array<Mask, kShort<T>>, kShort<T>> rows{};
  for (size_t i = 0; i < rows.size(); ++i) std::fill_n(rows[i].begin(), i, -1);
  return rows;
}();

/// The scores inside a block of `rows` tokens. The decayed right_s[n] of some tokens s are carried
/// from t to t + 1, where right_t joins; one n at a time, so that nothing is summed across a
/// vector. `turned`: scratch [N, kBlock].
template <bool kWhole, class T>
void score_rows(int64_t count, int64_t N, const T* left, const T* right, const T* factor, T* turned,
                T* W, int64_t C) {
  using V = ShortVector<T>;
  constexpr int lanes = kShort<T>;
  static_assert(kBlock % lanes == 0);
  const auto first = [](int i) {
    return load<decltype(V{} < V{})>(&kFirst<T>[static_cast<size_t>(i)]);
  };
  const int rows = kWhole ? kBlock : static_cast<int>(count);
  if (!kWhole) std::fill_n(turned, N * kBlock, T(0));
  transpose(count, N, right, N, turned, kBlock);
  for (int s = 0; s < rows; s += lanes) {
    V sum[kBlock] = {};
    for (int64_t n = 0; n < N; ++n) {
      const V x = load<V>(turned + n * kBlock + s);
      V decayed = {};
      const T *left_t = left + s * N + n, *factor_t = factor + s * N + n;
      each<kWhole>(0, rows, [&](int t) {
        if (t < s) return;
        decayed *= *factor_t;
        factor_t += N;
        if (t < s + lanes) decayed = first(t - s) ? decayed : x;
        sum[t] += *left_t * decayed;
        left_t += N;
      });
    }
    for (int t = s; t < rows; ++t) {
      if (t < s + lanes - 1) sum[t] = first(t - s + 1) ? sum[t] : V{};
      std::copy_n(reinterpret_cast<const T*>(&sum[t]), std::min(lanes, rows - s), W + t * C + s);
    }
  }
}

/// W[C, C], lower triangle; the rest of the diagonal blocks is set to 0.
template <class T>
void scores(int64_t C, const T* left, const T* right, Axis<T>& axis, T* W) {
  const int64_t N = axis.N;
  if (!axis.present) {
    transpose(C, N, right, N, axis.turned, C);
    lower_product(C, N, left, axis.turned, W);
    return;
  }
  for (int64_t p = 0; p < C; p += kBlock) {
    const int64_t rows = std::min(kBlock, C - p);
    T* block = W + p * C;
    for (int64_t t = 0; t < rows; ++t) std::fill_n(block + t * C, p + rows, T(0));
    if (p > 0) {
      multiply_rows(rows * N, left + p * N, axis.prefix + p * N, axis.other);
      transpose(p, N, axis.decayed_to(p, right, axis.rows), N, axis.turned, p);
      small_gemm(rows, p, N, View<T>{axis.other, N}, axis.turned, p, block, C);
    }
    const auto score_block = rows == kBlock ? score_rows<true, T> : score_rows<false, T>;
    score_block(rows, N, left + p * N, right + p * N, axis.factor + p * N, axis.turned, block + p,
                C);
  }
}

// Inside a block, for as many columns as V has elements (a vector or one number); rows are `pitch`
// apart, W is the block's corner of [C, C]. A whole block's sums stay in registers.

/// out_t += sum_{s<=t} W_ts D_ts right_s
template <class V, bool kWhole, class T>
void mix_rows(int64_t count, const T* W, int64_t C, const T* right, const T* factor, int64_t pitch,
              T* out) {
  const int rows = kWhole ? kBlock : static_cast<int>(count);
  V sum[kBlock];
  each<kWhole>(0, rows, [&](int t) { sum[t] = load<V>(out + t * pitch); });
  each<kWhole>(0, rows, [&](int s) {
    V decayed = load<V>(right + s * pitch);
    sum[s] += W[s * C + s] * decayed;
    each<kWhole>(s + 1, rows, [&](int t) {
      decayed *= load<V>(factor + t * pitch);
      sum[t] += W[t * C + s] * decayed;
    });
  });
  each<kWhole>(0, rows, [&](int t) { store(out + t * pitch, sum[t]); });
}

/// out_s += sum_{t>=s} W_ts D_ts left_t: from the last row, sum_s <- (sum_s + W_ts left_t)
/// factor_t.
template <class V, bool kWhole, class T>
void mix_rows_transposed(int64_t count, const T* W, int64_t C, const T* left, const T* factor,
                         int64_t pitch, T* out) {
  const int rows = kWhole ? kBlock : static_cast<int>(count);
  V sum[kBlock] = {};
  each<kWhole>(0, rows, [&](int before) {
    const int t = rows - 1 - before;
    const V x = load<V>(left + t * pitch), decay = load<V>(factor + t * pitch);
    each<kWhole>(0, t, [&](int s) { sum[s] = (sum[s] + W[t * C + s] * x) * decay; });
    sum[t] += W[t * C + t] * x;
  });
  each<kWhole>(0, rows, [&](int s) { store(out + s * pitch, load<V>(out + s * pitch) + sum[s]); });
}

template <class T>
void mix(int64_t C, const T* W, const T* right, Axis<T>& axis, T* out) {
  const int64_t N = axis.N;
  if (!axis.present) return multiply_lower(C, N, W, right, out);
  for (int64_t p = 0; p < C; p += kBlock) {
    const int64_t rows = std::min(kBlock, C - p);
    if (p > 0) {
      small_product(rows, N, p, View<T>{W + p * C, C}, axis.decayed_to(p, right, axis.rows), N,
                    axis.other, N);
      add_products(rows * N, axis.prefix + p * N, axis.other, out + p * N);
    }
    const T *x = right + p * N, *factor = axis.factor + p * N;
    by_columns<T>(N, [&](auto columns, int64_t n) {
      using V = typename decltype(columns)::type;
      const auto mix_block = rows == kBlock ? mix_rows<V, true, T> : mix_rows<V, false, T>;
      mix_block(rows, W + p * C + p, C, x + n, factor + n, N, out + p * N + n);
    });
  }
}

template <class T>
void mix_transposed(int64_t C, const T* W, const T* left, Axis<T>& axis, T* out) {
  const int64_t N = axis.N;
  if (!axis.present) return multiply_lower_transposed(C, N, W, left, out);
  for (int64_t p = 0; p < C; p += kBlock) {
    const int64_t rows = std::min(kBlock, C - p);
    if (p > 0) {
      multiply_rows(rows * N, left + p * N, axis.prefix + p * N, axis.other);
      T* earlier = axis.turned;  // [p, N]
      small_product(p, N, rows, transposed(W + p * C, C), axis.other, N, earlier, N);
      axis.decayed_to(p, earlier, axis.rows);
      for (int64_t i = 0; i < p * N; ++i) out[i] += axis.rows[i];
    }
    const T *x = left + p * N, *factor = axis.factor + p * N;
    by_columns<T>(N, [&](auto columns, int64_t n) {
      using V = typename decltype(columns)::type;
      const auto mix_block =
          rows == kBlock ? mix_rows_transposed<V, true, T> : mix_rows_transposed<V, false, T>;
      mix_block(rows, W + p * C + p, C, x + n, factor + n, N, out + p * N + n);
    });
  }
}

}  // namespace regla::cpu
