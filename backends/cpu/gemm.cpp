#include "backends/cpu/gemm.h"

#include <dnnl.h>

#include <Eigen/Core>
#include <string>

#include "backends/cpu/info.h"
#include "backends/cpu/one_thread.h"
#include "core/check.h"
#include "core/memory.h"

// `dnnl_sgemm` is the same call in versions 2 and 3 of oneDNN.
namespace regla::cpu {
void gemm(bool transpose_a, bool transpose_b, int64_t M, int64_t N, int64_t K, float alpha,
          const float* A, int64_t lda, const float* B, int64_t ldb, float beta, float* C,
          int64_t ldc) {
  if (M == 0 || N == 0) return;
  if (K == 0) {  // which oneDNN refuses; beta 0 must not read C
    for (int64_t m = 0; m < M; ++m) {
      for (int64_t n = 0; n < N; ++n) C[m * ldc + n] = beta == 0 ? 0 : beta * C[m * ldc + n];
    }
    return;
  }
  const OneThread guard;
  const dnnl_status_t status = dnnl_sgemm(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', M, N, K,
                                          alpha, A, lda, B, ldb, beta, C, ldc);
  if (status == dnnl_out_of_memory) throw MemoryError("[matmul] out of memory in oneDNN");
  check(status == dnnl_success, "[matmul] oneDNN refused [", M, ", ", K, "] x [", K, ", ", N,
        "] with status ", static_cast<int>(status));
}

void gemm(bool transpose_a, bool transpose_b, int64_t M, int64_t N, int64_t K, double alpha,
          const double* A, int64_t lda, const double* B, int64_t ldb, double beta, double* C,
          int64_t ldc) {
  using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Stride = Eigen::OuterStride<>;
  const Eigen::Map<const Matrix, 0, Stride> a(A, transpose_a ? K : M, transpose_a ? M : K,
                                              Stride(lda));
  const Eigen::Map<const Matrix, 0, Stride> b(B, transpose_b ? N : K, transpose_b ? K : N,
                                              Stride(ldb));
  Eigen::Map<Matrix, 0, Stride> c(C, M, N, Stride(ldc));
  // beta 0 must not read C, which may hold NaN.
  if (beta == 0) {
    c.setZero();
  } else if (beta != 1) {
    c *= beta;
  }
  if (transpose_a && transpose_b) {
    c.noalias() += alpha * (a.transpose() * b.transpose());
  } else if (transpose_a) {
    c.noalias() += alpha * (a.transpose() * b);
  } else if (transpose_b) {
    c.noalias() += alpha * (a * b.transpose());
  } else {
    c.noalias() += alpha * (a * b);
  }
}

const char* onednn_version() {
  static const std::string text = [] {
    const dnnl_version_t* version = dnnl_version();
    return std::to_string(version->major) + "." + std::to_string(version->minor) + "." +
           std::to_string(version->patch);
  }();
  return text.c_str();
}

const char* eigen_version() {
  static const std::string text = std::to_string(EIGEN_WORLD_VERSION) + "." +
                                  std::to_string(EIGEN_MAJOR_VERSION) + "." +
                                  std::to_string(EIGEN_MINOR_VERSION);
  return text.c_str();
}

}  // namespace regla::cpu
