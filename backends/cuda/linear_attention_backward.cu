#include "backends/cuda/cells.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/linear_attention.cuh"
#include "backends/cuda/linear_attention_backward_states.cuh"
#include "core/recurrences/linear_attention.h"

namespace regla::cuda {
namespace {

/// Chunks of a segment: as many blocks as keep every multiprocessor busy to the end, where a head
/// for each block would leave many idle in the last turn.
constexpr int kSegment = 8;
int segment_of(const Context& on, int64_t heads, int chunks) {
  constexpr int64_t kTurns = 4, kBlocksPerMultiprocessor = 2;
  return heads >= kTurns * kBlocksPerMultiprocessor * on.multiprocessors ? chunks : kSegment;
}

/// All of it by the kernels of a size and orientation.
template <int N, bool kTurned>
void launch_chunks(const Context& on, ChunkedBackward& p, int64_t heads) {
  const int segments = (p.chunks + p.segment - 1) / p.segment;
  const auto blocks = static_cast<unsigned>(heads);
  const int64_t size = int64_t{p.fading.size} * p.steady.size;
  Tensor ends, totals;
  if (segments > 1) {
    ends = Tensor::empty({heads, segments - 1, size}, DType::F32, on.device);
    totals = Tensor::empty({heads, segments - 1, p.fading.size}, DType::F32, on.device);
    float *const parts = ends.data<float>(), *const decays = totals.data<float>();
    constexpr size_t kBytes = sizeof(SegmentMemory<N>);
    ask_for_shared(sum_segments<N, kTurned>, kBytes);
    sum_segments<N, kTurned>
        <<<dim3(blocks, segments - 1), 2 * N, kBytes, on.stream>>>(p, parts, decays);
    const auto pieces = static_cast<unsigned>((size + 255) / 256);
    join_segments<kTurned><<<dim3(blocks, pieces), 256, 0, on.stream>>>(p, segments, parts, decays);
    p.d_ends = parts;
  }
  constexpr size_t kBytes = sizeof(BackwardMemory<N>);
  ask_for_shared(reverse_chunks<N, kTurned>, kBytes);
  reverse_chunks<N, kTurned><<<dim3(blocks, segments), 2 * N, kBytes, on.stream>>>(p);
  require_launched("linear_attention_backward");
}

const Bf16* narrow(const Tensor& x) { return static_cast<const Bf16*>(storage_of<float>(x)); }

/// Whether one axis decays at most, and all can be read and written in pieces of 16 bytes.
bool reverses_in_chunks(const LinearAttentionArgs& args, const LinearAttentionGradients& to) {
  const auto is_aligned = [](const Tensor& x) {
    return !x.defined() || reinterpret_cast<uintptr_t>(storage_of<float>(x)) % 16 == 0;
  };
  return args.q.dim(1) > 0 && !(args.log_a && args.log_b) && is_aligned(to.d_o) &&
         is_aligned(to.d_q.tensor) && is_aligned(to.d_k.tensor) && is_aligned(to.d_u.tensor) &&
         is_aligned(to.d_log_a.tensor) && is_aligned(to.d_log_b.tensor);
}

void reverse_in_chunks(const LinearAttentionArgs& args, const RecurrenceResult& forward,
                       const LinearAttentionGradients& to) {
  const int64_t B = args.q.dim(0), T = args.q.dim(1), H = args.q.dim(2), heads = B * H;
  const int K = static_cast<int>(args.q.dim(3)), V = static_cast<int>(args.u.dim(3));
  if (heads == 0) return;
  const BackwardAxis keys = {narrow(args.q),
                             narrow(args.k),
                             narrow(args.log_a),
                             Result<float>(to.d_q),
                             Result<float>(to.d_k),
                             Result<float>(to.d_log_a),
                             K};
  const BackwardAxis values = {narrow(to.d_o),
                               narrow(args.u),
                               narrow(args.log_b),
                               Result<float>(),
                               Result<float>(to.d_u),
                               Result<float>(to.d_log_b),
                               V};
  const bool turned = args.log_a.defined();
  ChunkedBackward p = {};
  p.fading = turned ? keys : values;
  p.steady = turned ? values : keys;
  p.log_s = args.log_s ? args.log_s.data<float>() : nullptr;
  p.reset = args.reset ? args.reset.data<int32_t>() : nullptr;
  p.kept = narrow(forward.kept);
  p.last = forward.state.data<float>();
  p.d_last = to.d_state ? to.d_state.data<float>() : nullptr;
  p.d_log_s = Result<float>(to.d_log_s);
  p.d_first = Result<float>(to.d_state0);
  p.steps = static_cast<int>(T);
  p.H = static_cast<int>(H);
  p.chunks = static_cast<int>((T + kChunkTokens - 1) / kChunkTokens);
  const Context& on = context(args.q);
  p.segment = segment_of(on, heads, p.chunks);
  if (K <= 64 && V <= 64) {
    turned ? launch_chunks<64, true>(on, p, heads) : launch_chunks<64, false>(on, p, heads);
  } else {
    turned ? launch_chunks<128, true>(on, p, heads) : launch_chunks<128, false>(on, p, heads);
  }
}

}  // namespace

void linear_attention_backward(const LinearAttentionArgs& args, const RecurrenceResult& forward,
                               const LinearAttentionGradients& gradients) {
  RecurrenceResult states = forward;
  if (takes_chunks(args)) {
    if (reverses_in_chunks(args, gradients)) return reverse_in_chunks(args, forward, gradients);
    states.kept = Tensor::empty(forward.kept.shape(), DType::F32, forward.kept.device());
    convert(forward.kept, states.kept);
  }
  reverse_cell<recurrence::LinearAttention>(cell_args(args), states, cell_gradients(gradients));
}

}  // namespace regla::cuda
