#pragma once

#include <cstdint>

namespace regla::cpu {

/// C = alpha op(A) op(B) + beta C on one thread, row-major; op(A) is [M, K], op(B) is [K, N], each
/// leading dimension is that of the matrix as stored. Float runs on oneDNN, double on Eigen.
void gemm(bool transpose_a, bool transpose_b, int64_t M, int64_t N, int64_t K, float alpha,
          const float* A, int64_t lda, const float* B, int64_t ldb, float beta, float* C,
          int64_t ldc);
void gemm(bool transpose_a, bool transpose_b, int64_t M, int64_t N, int64_t K, double alpha,
          const double* A, int64_t lda, const double* B, int64_t ldb, double beta, double* C,
          int64_t ldc);

}  // namespace regla::cpu
