#include "backends/cuda/delta_rule.cuh"
#include "backends/cuda/kernels.h"

namespace regla::cuda {
namespace {

template <class S>
struct DeltaRuleCell {
  static constexpr int kVectors = 2;  // q, k
  using Inputs = DeltaRuleInputs<S>;
  Inputs in;
  Result<S> o;

  __device__ void load(int64_t n, int64_t t, S* vectors) const {
    const Heads& heads = in.heads;
    const int64_t K = heads.K, row = heads.row(n, t) * K;
    for (int64_t i = threadIdx.x; i < K; i += blockDim.x) {
      vectors[i] = in.q[row + i];
      vectors[K + i] = in.k[row + i];
    }
  }

  // e_j = v_j - sum_i k_i S[i,j],   S[i,j] += k_i g e_j,   o_j = sum_i q_i S[i,j]
  __device__ void step(int64_t n, int64_t t, int64_t j, const S* vectors, S* column,
                       int64_t pitch) const {
    const Heads& heads = in.heads;
    const int64_t K = heads.K, row = heads.row(n, t);
    const S* k = vectors + K;
    const bool empties = heads.resets(n, t);
    S error = in.v[row * heads.V + j];
#pragma unroll 4
    for (int64_t i = 0; i < K; ++i) {
      if (empties) column[i * pitch] = 0;
      error -= k[i] * column[i * pitch];
    }
    const S u = in.g[row] * error;
    S sum = 0;
#pragma unroll 4
    for (int64_t i = 0; i < K; ++i) {
      const S next = column[i * pitch] + k[i] * u;
      column[i * pitch] = next;
      sum += vectors[i] * next;
    }
    o.put(row * heads.V + j, sum);
  }
};

}  // namespace

void delta_rule(const DeltaRuleArgs& args, RecurrenceResult& result) {
  if (takes_chunks(args)) return delta_rule_chunks(args, result);
  forward_columns<DeltaRuleCell>("delta_rule", args, result);
}

void delta_rule_step(const DeltaRuleArgs& args, Tensor o) {
  step_columns<DeltaRuleCell>("delta_rule_step", args, o);
}

}  // namespace regla::cuda
