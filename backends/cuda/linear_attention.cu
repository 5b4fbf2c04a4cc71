#include "backends/cuda/cells.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/linear_attention.cuh"
#include "core/recurrences/linear_attention.h"

namespace regla::cuda {

void linear_attention(const LinearAttentionArgs& args, RecurrenceResult& result) {
  if (takes_chunks(args)) return linear_attention_chunks(args, result);
  run_cell<recurrence::LinearAttention>(cell_args(args), result);
}

void linear_attention_step(const LinearAttentionArgs& args, Tensor o) {
  RecurrenceResult result = {o, args.state, {}};
  run_cell<recurrence::LinearAttention>(cell_args(args), result);
}

}  // namespace regla::cuda
