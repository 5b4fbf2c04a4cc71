#include "backends/cuda/chained.cuh"
#include "backends/cuda/elements.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/loops.cuh"

// Bytes: the scores twice, and the flags of what was seen.
namespace regla::cuda {
namespace {

/// A thread alone looks after an element, so that it marks and reads its flag in order.
template <class S>
__global__ __launch_bounds__(kThreads) void penalise_scores(int64_t count, int64_t vocab, S penalty,
                                                            const S* scores, const int32_t* ids,
                                                            int32_t* seen, S* y) {
  let_next_begin();
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  await_before();
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += stride) {
    const bool is_new = ids != nullptr && ids[i / vocab] == static_cast<int32_t>(i % vocab);
    if (is_new) seen[i] = 1;
    const S score = scores[i], penalised = score > 0 ? score / penalty : score * penalty;
    y[i] = is_new || seen[i] != 0 ? penalised : score;
  }
}

}  // namespace

void penalise(const PenaliseArgs& args, Tensor y) {
  const int64_t count = args.scores.numel();
  if (count == 0) return;
  const Context& on = context(y);
  Tensor seen = args.seen;
  for_sum_type(args.scores.dtype(), "penalise", [&](auto tag) {
    using S = decltype(tag);
    launch_chained(on, penalise_scores<S>, dim3(blocks_for(on, count)), kThreads, 0, count,
                   args.scores.dim(1), static_cast<S>(args.penalty), args.scores.data<S>(),
                   args.ids ? args.ids.data<int32_t>() : nullptr, seen.data<int32_t>(),
                   y.data<S>());
  });
}

}  // namespace regla::cuda
