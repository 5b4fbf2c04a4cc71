#pragma once

#include <cstdint>
#include <cstring>

namespace regla::cpu {

/// How many bytes one vector operation of this processor takes.
#ifdef __AVX512F__
constexpr int64_t kVectorBytes = 64;
#else
constexpr int64_t kVectorBytes = 32;
#endif

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
};

/// A small matrix inside a chunk, read as element (r, c) at data[r * row + c * column].
template <class T>
struct View {
  const T* data;
  int64_t row, column = 1;
};

template <class T>
View<T> transposed(const T* data, int64_t pitch) {
  return {data, 1, pitch};
}

/// R rows of C += A B, kept in R x Vectors registers while the loop runs over K.
template <int R, int Vectors, class T>
void gemm_tile(int64_t K, View<T> A, const T* B, int64_t ldb, T* C, int64_t ldc) {
  using Vector = typename VectorOf<T>::type;
  constexpr int64_t lanes = kVectorBytes / static_cast<int64_t>(sizeof(T));
  Vector sum[R][Vectors];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < Vectors; ++v)
      std::memcpy(&sum[r][v], C + r * ldc + v * lanes, sizeof(Vector));
  }
  for (int64_t k = 0; k < K; ++k) {
    Vector b[Vectors];
    std::memcpy(b, B + k * ldb, sizeof(b));
    for (int r = 0; r < R; ++r) {
      const T a = A.data[r * A.row + k * A.column];
      for (int v = 0; v < Vectors; ++v) sum[r][v] += a * b[v];
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < Vectors; ++v)
      std::memcpy(C + r * ldc + v * lanes, &sum[r][v], sizeof(Vector));
  }
}

/// C[M, N] += A[M, K] B[K, N] for blocks that fit the first-level cache, where a library call costs
/// more than the product. A may be a transposed view; B and C have contiguous rows.
template <class T>
void small_gemm(int64_t M, int64_t N, int64_t K, View<T> A, const T* B, int64_t ldb, T* C,
                int64_t ldc) {
  constexpr int64_t lanes = kVectorBytes / static_cast<int64_t>(sizeof(T));
  constexpr int kRows = 4, kVectors = kVectorBytes == 64 ? 4 : 2;
  for (int64_t m = 0; m < M;) {
    const View<T> a = {A.data + m * A.row, A.row, A.column};
    T* c = C + m * ldc;
    const bool full = M - m >= kRows;
    int64_t n = 0;
    for (; n + kVectors * lanes <= N; n += kVectors * lanes) {
      full ? gemm_tile<kRows, kVectors>(K, a, B + n, ldb, c + n, ldc)
           : gemm_tile<1, kVectors>(K, a, B + n, ldb, c + n, ldc);
    }
    for (; n + lanes <= N; n += lanes) {
      full ? gemm_tile<kRows, 1>(K, a, B + n, ldb, c + n, ldc)
           : gemm_tile<1, 1>(K, a, B + n, ldb, c + n, ldc);
    }
    for (int64_t r = 0; n < N && r < (full ? kRows : 1); ++r) {
      for (int64_t k = 0; k < K; ++k) {
        const T x = a.data[r * a.row + k * a.column];
        for (int64_t j = n; j < N; ++j) c[r * ldc + j] += x * B[k * ldb + j];
      }
    }
    m += full ? kRows : 1;
  }
}

/// out[C, R] = in[R, C]^T
template <class T>
void transpose(int64_t R, int64_t C, const T* in, int64_t pitch, T* out) {
  for (int64_t r = 0; r < R; ++r) {
    for (int64_t c = 0; c < C; ++c) out[c * R + r] = in[r * pitch + c];
  }
}

}  // namespace regla::cpu
