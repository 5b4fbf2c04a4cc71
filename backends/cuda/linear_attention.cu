#include "backends/cuda/kernels.h"
#include "backends/cuda/linear_attention.cuh"

namespace regla::cuda {
namespace {

template <class S>
struct LinearAttentionCell {
  static constexpr int kVectors = 3;  // q, k, a
  using Inputs = LinearAttentionInputs<S>;
  Inputs in;
  Result<S> o;

  __device__ void load(int64_t n, int64_t t, S* vectors) const {
    const Heads& heads = in.heads;
    const int64_t K = heads.K, row = heads.row(n, t) * K;
    for (int64_t i = threadIdx.x; i < K; i += blockDim.x) {
      vectors[i] = in.q[row + i];
      vectors[K + i] = in.k[row + i];
      vectors[2 * K + i] = in.key_factor(n, t, i);
    }
  }

  // S_t[i,j] = a_i b_j S_{t-1}[i,j] + k_i u_j,   o_j = sum_i q_i S_t[i,j]
  __device__ void step(int64_t n, int64_t t, int64_t j, const S* vectors, S* column,
                       int64_t pitch) const {
    const Heads& heads = in.heads;
    const int64_t K = heads.K, at = heads.row(n, t) * heads.V + j;
    const S b = in.value_factor(n, t, j), u = in.u[at];
    S sum = 0;
#pragma unroll 4
    for (int64_t i = 0; i < K; ++i) {
      const S next = vectors[2 * K + i] * b * column[i * pitch] + vectors[K + i] * u;
      column[i * pitch] = next;
      sum += vectors[i] * next;
    }
    o.put(at, sum);
  }
};

}  // namespace

void linear_attention(const LinearAttentionArgs& args, RecurrenceResult& result) {
  if (takes_chunks(args)) return linear_attention_chunks(args, result);
  forward_columns<LinearAttentionCell>("linear_attention", args, result);
}

void linear_attention_step(const LinearAttentionArgs& args, Tensor o) {
  step_columns<LinearAttentionCell>("linear_attention_step", args, o);
}

}  // namespace regla::cuda
