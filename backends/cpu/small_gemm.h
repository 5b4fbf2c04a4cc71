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

/// R rows of one vector of columns of C += A B, kept in R registers while the loop runs over K.
/// Eight rows hide the latency of the multiply-add; wider tiles measured slower, because the
/// compiler spills them.
template <int R, class T>
void gemm_tile(int64_t K, View<T> A, const T* B, int64_t ldb, T* C, int64_t ldc) {
  using Vector = typename VectorOf<T>::type;
  Vector sum[R];
  for (int r = 0; r < R; ++r) std::memcpy(&sum[r], C + r * ldc, sizeof(Vector));
  for (int64_t k = 0; k < K; ++k) {
    Vector b;
    std::memcpy(&b, B + k * ldb, sizeof(Vector));
    for (int r = 0; r < R; ++r) sum[r] += A.data[r * A.row + k * A.column] * b;
  }
  for (int r = 0; r < R; ++r) std::memcpy(C + r * ldc, &sum[r], sizeof(Vector));
}

/// R rows of C += A B, all N columns.
template <int R, class T>
void gemm_rows(int64_t N, int64_t K, View<T> A, const T* B, int64_t ldb, T* C, int64_t ldc) {
  constexpr int64_t lanes = kVectorBytes / static_cast<int64_t>(sizeof(T));
  int64_t n = 0;
  for (; n + lanes <= N; n += lanes) gemm_tile<R>(K, A, B + n, ldb, C + n, ldc);
  if (n == N) return;
  for (int64_t r = 0; r < R; ++r) {
    for (int64_t k = 0; k < K; ++k) {
      const T a = A.data[r * A.row + k * A.column];
      for (int64_t j = n; j < N; ++j) C[r * ldc + j] += a * B[k * ldb + j];
    }
  }
}

/// C[M, N] += A[M, K] B[K, N] for blocks that fit the first-level cache, where a library call costs
/// more than the product. A may be a transposed view; B and C have contiguous rows.
template <class T>
void small_gemm(int64_t M, int64_t N, int64_t K, View<T> A, const T* B, int64_t ldb, T* C,
                int64_t ldc) {
  int64_t m = 0;
  const auto from = [&](int64_t row) { return View<T>{A.data + row * A.row, A.row, A.column}; };
  for (; m + 8 <= M; m += 8) gemm_rows<8>(N, K, from(m), B, ldb, C + m * ldc, ldc);
  for (; m + 4 <= M; m += 4) gemm_rows<4>(N, K, from(m), B, ldb, C + m * ldc, ldc);
  for (; m < M; ++m) gemm_rows<1>(N, K, from(m), B, ldb, C + m * ldc, ldc);
}

/// out[C, R] = in[R, C]^T
template <class T>
void transpose(int64_t R, int64_t C, const T* in, int64_t pitch, T* out) {
  // Eight rows at a time: a column of the tile is one short run in the output.
  for (int64_t r = 0; r < R; r += 8) {
    const int64_t rows = R - r < 8 ? R - r : 8;
    if (rows == 8) {
      for (int64_t c = 0; c < C; ++c) {
        for (int64_t i = 0; i < 8; ++i) out[c * R + r + i] = in[(r + i) * pitch + c];
      }
    } else {
      for (int64_t c = 0; c < C; ++c) {
        for (int64_t i = 0; i < rows; ++i) out[c * R + r + i] = in[(r + i) * pitch + c];
      }
    }
  }
}

}  // namespace regla::cpu
