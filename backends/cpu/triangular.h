#pragma once

#include <algorithm>
#include <cstdint>

#include "backends/cpu/small_gemm.h"

// Products with lower triangles of [C, C], the tokens of a chunk seeing those before them, by
// blocks of kBlock tokens. Rows are [C, N]; a `turned` matrix is [N, C].
namespace regla::cpu {

constexpr int64_t kBlock = 16;

/// Hands out pieces of one scratch buffer.
template <class T>
struct Arena {
  T* next;
  T* take(int64_t count) {
    T* piece = next;
    next += count;
    return piece;
  }
};

/// W = tril(left right^T), the diagonal included. Above the diagonal its blocks hold 0, and what
/// lies beyond the blocks is not written.
template <class T>
void lower_product(int64_t C, int64_t N, const T* left, const T* right_turned, T* W) {
  for (int64_t p = 0; p < C; p += kBlock) {
    const int64_t rows = std::min(kBlock, C - p);
    T* block = W + p * C;
    small_product(rows, p + rows, N, View<T>{left + p * N, N}, right_turned, C, block, C);
    for (int64_t t = 0; t < rows; ++t)
      std::fill(block + t * C + p + t + 1, block + t * C + p + rows, T(0));
  }
}

/// out += W x for such a W.
template <class T>
void multiply_lower(int64_t C, int64_t N, const T* W, const T* x, T* out) {
  for (int64_t p = 0; p < C; p += kBlock) {
    const int64_t rows = std::min(kBlock, C - p);
    small_gemm(rows, N, p + rows, View<T>{W + p * C, C}, x, N, out + p * N, N);
  }
}

/// out += W^T x
template <class T>
void multiply_lower_transposed(int64_t C, int64_t N, const T* W, const T* x, T* out) {
  for (int64_t p = 0; p < C; p += kBlock) {
    const int64_t rows = std::min(kBlock, C - p);
    small_gemm(rows, N, C - p, transposed(W + p * C + p, C), x + p * N, N, out + p * N, N);
  }
}

/// x <- (I - L)^{-1} x, L what lies below the diagonal of W: forward substitution, x = x + L x row
/// by row inside a block of tokens and as a product between blocks.
template <class T>
void solve_lower(int64_t C, int64_t N, const T* W, T* x) {
  for (int64_t p = 0; p < C; p += kBlock) {
    const int64_t end = std::min(C, p + kBlock);
    small_gemm(end - p, N, p, View<T>{W + p * C, C}, x, N, x + p * N, N);
    for (int64_t t = p + 1; t < end; ++t) {
      small_gemm(1, N, t - p, View<T>{W + t * C + p, C}, x + p * N, N, x + t * N, N);
    }
  }
}

/// x <- (I - L)^{-T} x, from the last token.
template <class T>
void solve_lower_transposed(int64_t C, int64_t N, const T* W, T* x) {
  for (int64_t p = (C - 1) / kBlock * kBlock; p >= 0; p -= kBlock) {
    const int64_t end = std::min(C, p + kBlock);
    small_gemm(end - p, N, C - end, transposed(W + end * C + p, C), x + end * N, N, x + p * N, N);
    for (int64_t t = end - 2; t >= p; --t) {
      small_gemm(1, N, end - 1 - t, transposed(W + (t + 1) * C + t, C), x + (t + 1) * N, N,
                 x + t * N, N);
    }
  }
}

}  // namespace regla::cpu
