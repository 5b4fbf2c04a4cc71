#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

namespace regla::cpu {

/// How many bytes one vector operation of this processor takes.
#ifdef __AVX512F__
constexpr int64_t kVectorBytes = 64;
#else
constexpr int64_t kVectorBytes = 32;
#endif

template <class T, int64_t kBytes>
struct VectorOf;
template <int64_t kBytes>
struct VectorOf<float, kBytes> {
  typedef float type __attribute__((vector_size(kBytes)));
};
template <int64_t kBytes>
struct VectorOf<double, kBytes> {
  typedef double type __attribute__((vector_size(kBytes)));
};

template <int64_t kBytes>
struct VectorOf<uint16_t, kBytes> {
  typedef uint16_t type __attribute__((vector_size(kBytes)));
};
template <int64_t kBytes>
struct VectorOf<uint32_t, kBytes> {
  typedef uint32_t type __attribute__((vector_size(kBytes)));
};

template <class V, class T>
V load(const T* from) {
  V vector;
  std::memcpy(&vector, from, sizeof(V));
  return vector;
}
template <class V, class T>
void store(T* to, const V& vector) {
  std::memcpy(static_cast<void*>(to), &vector, sizeof(V));
}

/// Names a type that holds some neighbouring columns: a vector, or one number.
template <class V>
struct Columns {
  using type = V;
};

/// Calls f(Columns<V>, n) for pieces that cover the columns [0, N): whole vectors first, then what
/// is left in smaller ones.
template <class T, class F>
[[gnu::always_inline]] inline void by_columns(int64_t N, F&& f) {
  constexpr int64_t size = sizeof(T), lanes = kVectorBytes / size, few = 16 / size;
  int64_t n = 0;
  for (; n + lanes <= N; n += lanes) f(Columns<typename VectorOf<T, kVectorBytes>::type>{}, n);
  for (; n + few <= N; n += few) f(Columns<typename VectorOf<T, 16>::type>{}, n);
  for (; n < N; ++n) f(Columns<T>{}, n);
}

/// Copies `count` rows of `size` elements between matrices of different pitch.
template <class T>
void copy_rows(int64_t count, int64_t size, const T* from, int64_t from_pitch, T* to,
               int64_t to_pitch) {
  for (int64_t r = 0; r < count; ++r) {
    by_columns<T>(size, [&](auto columns, int64_t n) {
      using V = typename decltype(columns)::type;
      store(to + r * to_pitch + n, load<V>(from + r * from_pitch + n));
    });
  }
}

/// A small matrix inside a chunk, its rows `pitch` apart, or its columns if it is turned. Which of
/// the two is known when a product is compiled: with two unknown strides there are too few
/// registers for the addresses.
template <class T, bool kTurned = false>
struct View {
  const T* data;
  int64_t pitch;

  /// Element (r, 0).
  const T* row(int64_t r) const { return data + (kTurned ? r : r * pitch); }
  /// How far element (0, k + 1) is from (0, k).
  int64_t step() const { return kTurned ? pitch : 1; }
};

template <class T>
View<T, true> transposed(const T* data, int64_t pitch) {
  return {data, pitch};
}

/// R rows of one piece of columns of C <- first + A B, kept in R registers while the loop runs over
/// K; first(Columns<V>, c, r) gives what row r, now at c, begins with. Eight rows hide the latency
/// of the multiply-add; wider tiles measured slower, because the compiler spills them.
template <int R, class V, class T, bool kTurned, class First>
void gemm_tile(int64_t K, View<T, kTurned> A, const T* B, int64_t ldb, T* C, int64_t ldc,
               First&& first) {
  V sum[R];
  const T* start = C;
  for (int r = 0; r < R; ++r, start += ldc) sum[r] = first(Columns<V>{}, start, r);
  for (int64_t k = 0; k < K; ++k, B += ldb, A.data += A.step()) {
    const V b = load<V>(B);
    for (int r = 0; r < R; ++r) sum[r] += *A.row(r) * b;
  }
  for (int r = 0; r < R; ++r, C += ldc) store(C, sum[r]);
}

/// R rows of C from row m on, all N columns.
template <int R, class T, bool kTurned, class First>
void gemm_rows(int64_t m, int64_t N, int64_t K, View<T, kTurned> A, const T* B, int64_t ldb, T* C,
               int64_t ldc, const First& first) {
  A.data = A.row(m);
  by_columns<T>(N, [&](auto columns, int64_t n) {
    gemm_tile<R, typename decltype(columns)::type>(
        K, A, B + n, ldb, C + m * ldc + n, ldc,
        [&](auto piece, const T* c, int r) { return first(piece, c, m + r, n); });
  });
}

/// C <- first + A B, where first(Columns<V>, c, m, n) gives what the piece at row m and column n,
/// now at c, begins with.
template <class T, bool kTurned, class First>
void gemm_block(int64_t M, int64_t N, int64_t K, View<T, kTurned> A, const T* B, int64_t ldb, T* C,
                int64_t ldc, const First& first) {
  int64_t m = 0;
  for (; m + 8 <= M; m += 8) gemm_rows<8>(m, N, K, A, B, ldb, C, ldc, first);
  for (; m + 4 <= M; m += 4) gemm_rows<4>(m, N, K, A, B, ldb, C, ldc, first);
  for (; m < M; ++m) gemm_rows<1>(m, N, K, A, B, ldb, C, ldc, first);
}

/// C[M, N] = A[M, K] B[K, N] for blocks that fit the first-level cache, where a library call costs
/// more than the product. B and C have contiguous rows.
template <class T, bool kTurned>
void small_product(int64_t M, int64_t N, int64_t K, View<T, kTurned> A, const T* B, int64_t ldb,
                   T* C, int64_t ldc) {
  gemm_block(M, N, K, A, B, ldb, C, ldc, [](auto piece, const T*, int64_t, int64_t) {
    return typename decltype(piece)::type{};
  });
}

/// The same, C += A B.
template <class T, bool kTurned>
void small_gemm(int64_t M, int64_t N, int64_t K, View<T, kTurned> A, const T* B, int64_t ldb, T* C,
                int64_t ldc) {
  gemm_block(M, N, K, A, B, ldb, C, ldc, [](auto piece, const T* c, int64_t, int64_t) {
    return load<typename decltype(piece)::type>(c);
  });
}

/// The same, C = diag(rows) C diag(columns) + A B.
template <class T, bool kTurned>
void small_gemm_scaled(int64_t M, int64_t N, int64_t K, View<T, kTurned> A, const T* B, int64_t ldb,
                       const T* rows, const T* columns, T* C, int64_t ldc) {
  gemm_block(M, N, K, A, B, ldb, C, ldc, [=](auto piece, const T* c, int64_t m, int64_t n) {
    using V = typename decltype(piece)::type;
    return rows[m] * load<V>(columns + n) * load<V>(c);
  });
}

/// The even (kHigh: odd) half of the perfect shuffle a0 b0 a1 b1 ...
template <bool kHigh, class V, int... i>
V interleaved(const V& a, const V& b, std::integer_sequence<int, i...>) {
  constexpr int lanes = sizeof...(i), half = kHigh ? lanes / 2 : 0;
  return __builtin_shufflevector(a, b, (half + i / 2 + i % 2 * lanes)...);
}

/// out = in^T for a square of as many rows as a vector has elements: log2(rows) perfect shuffles of
/// row r with row r + rows/2. Elements of T may be stored as several of another type.
template <class T, class Stored>
void transpose_square(const Stored* in, int64_t in_pitch, Stored* out, int64_t out_pitch) {
  using V = typename VectorOf<T, kVectorBytes>::type;
  constexpr int lanes = kVectorBytes / static_cast<int>(sizeof(T));
  constexpr std::make_integer_sequence<int, lanes> each{};
  V row[lanes], next[lanes];
  for (int r = 0; r < lanes; ++r) row[r] = load<V>(in + r * in_pitch);
#pragma GCC unroll 4
  for (int size = 1; size < lanes; size *= 2) {
#pragma GCC unroll 8
    for (int r = 0; r < lanes / 2; ++r) {
      next[2 * r] = interleaved<false>(row[r], row[r + lanes / 2], each);
      next[2 * r + 1] = interleaved<true>(row[r], row[r + lanes / 2], each);
    }
#pragma GCC unroll 16
    for (int r = 0; r < lanes; ++r) row[r] = next[r];
  }
  for (int r = 0; r < lanes; ++r) store(out + r * out_pitch, row[r]);
}

/// out[C, R] = in[R, C]^T; rows of out are `out_pitch` apart.
template <class T>
void transpose(int64_t R, int64_t C, const T* in, int64_t in_pitch, T* out, int64_t out_pitch) {
  constexpr int64_t side = kVectorBytes / static_cast<int64_t>(sizeof(T));
  for (int64_t r = 0; r < R; r += side) {
    for (int64_t c = 0; c < C; c += side) {
      const T* from = in + r * in_pitch + c;
      T* to = out + c * out_pitch + r;
      if (r + side <= R && c + side <= C) {
        transpose_square<T>(from, in_pitch, to, out_pitch);
        continue;
      }
      for (int64_t j = 0; j < std::min(side, C - c); ++j) {
        for (int64_t i = 0; i < std::min(side, R - r); ++i) {
          to[j * out_pitch + i] = from[i * in_pitch + j];
        }
      }
    }
  }
}

}  // namespace regla::cpu
