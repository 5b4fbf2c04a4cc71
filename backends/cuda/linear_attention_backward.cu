#include <algorithm>
#include <utility>

#include "backends/cuda/cells.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/linear_attention.cuh"
#include "backends/cuda/linear_attention_backward_states.cuh"
#include "core/recurrences/linear_attention.h"

namespace regla::cuda {
namespace {

/// Chunks of a segment, so that all blocks are done first: those of whole segments in turns, and
/// then those of what is left of each head, in the gaps of the last turn as far as they fit there.
/// A block spends as long before its first chunk as on one and a half; the sums of segments take a
/// quarter of a chunk's time for each of the longest behind the first, and that of two more.
template <int N>
int segment_of(const Context& on, int64_t heads, int chunks) {
  constexpr int kFewest = 4, kBlocksPerMultiprocessor = N == 64 ? 2 : 1;
  const int64_t room = int64_t{kBlocksPerMultiprocessor} * on.multiprocessors;
  const auto turns_of = [&](int64_t blocks) { return (blocks + room - 1) / room; };
  const auto time_of = [](int64_t length) { return 2 * length + 3; };
  const auto time_with = [&](int segment) {
    const int64_t whole = heads * (chunks / segment), turns = turns_of(whole);
    const int64_t sums = segment < chunks ? 4 + std::min(segment, chunks - segment) / 2 : 0;
    const int64_t time = sums + turns * time_of(segment), rest = time_of(chunks % segment);
    if (chunks % segment == 0) return time;
    const int64_t in_gaps = (turns * room - whole) * (time_of(segment) / rest);
    return time + turns_of(std::max<int64_t>(0, heads - in_gaps)) * rest;
  };
  int best = chunks;
  for (int segment = kFewest; segment < chunks; ++segment) {
    if (time_with(segment) < time_with(best)) best = segment;
  }
  return best;
}

/// The gradients behind segments but the last one.
template <int N, bool kTurned, bool kBoth>
Tensor find_ends(const Context& on, const ChunkedBackward& p, int64_t heads, int segments) {
  const int64_t size = int64_t{p.fading.size} * p.steady.size;
  const auto blocks = static_cast<unsigned>(heads);
  const auto parts_of = [&](int64_t of) {
    return Tensor::empty({heads, segments - 1, of}, DType::F32, on.device);
  };
  const Tensor fading = parts_of(p.fading.size),
               steady = kBoth ? parts_of(p.steady.size) : Tensor{};
  Tensor ends = parts_of(size);
  const auto numbers = [](const Tensor& x) { return static_cast<float*>(storage_of<float>(x)); };
  const SegmentSums sums = {numbers(ends), numbers(fading), numbers(steady)};
  constexpr size_t kBytes = sizeof(SegmentMemory<N, kBoth>);
  ask_for_shared(sum_segments<N, kTurned, kBoth>, kBytes);
  sum_segments<N, kTurned, kBoth>
      <<<dim3(blocks, static_cast<unsigned>(segments - 1)), 2 * N, kBytes, on.stream>>>(p, sums);
  const auto pieces = static_cast<unsigned>((size + 255) / 256);
  join_segments<kTurned><<<dim3(blocks, pieces), 256, 0, on.stream>>>(p, segments, sums);
  return ends;
}

template <int N, bool kTurned, bool kBoth, bool kAlike = false>
void launch_chunks(const Context& on, const ChunkedBackward& p, int64_t heads, int segments) {
  constexpr size_t kBytes = sizeof(BackwardMemory<N, kBoth>);
  ask_for_shared(reverse_chunks<N, kTurned, kBoth, kAlike>, kBytes);
  const dim3 blocks(static_cast<unsigned>(heads), static_cast<unsigned>(segments));
  reverse_chunks<N, kTurned, kBoth, kAlike><<<blocks, 2 * N, kBytes, on.stream>>>(p);
}

/// All of it by the kernels of a size; `p` has the axis of values as the fading one.
template <int N>
void reverse_axes(const Context& on, ChunkedBackward p, int64_t heads) {
  const bool by_values = p.fading.log != nullptr, by_keys = p.steady.log != nullptr;
  p.segment = segment_of<N>(on, heads, p.chunks);
  const int segments = (p.chunks + p.segment - 1) / p.segment;
  Tensor ends;
  const auto find = [&](auto find_them) {
    if (segments == 1) return;
    ends = find_them(on, p, heads, segments);
    p.d_ends = ends.data<float>();
  };
  if (by_values && by_keys) {
    find(find_ends<N, false, true>);
    launch_chunks<N, false, true>(on, p, heads, segments);
    std::swap(p.fading, p.steady);
    p.d_log_s = p.d_first = Result<float>();
    launch_chunks<N, true, true>(on, p, heads, segments);
  } else if (by_keys) {
    std::swap(p.fading, p.steady);
    find(find_ends<N, true, false>);
    launch_chunks<N, true, false>(on, p, heads, segments);
  } else {
    find(find_ends<N, false, false>);
    by_values ? launch_chunks<N, false, false>(on, p, heads, segments)
              : launch_chunks<N, false, false, true>(on, p, heads, segments);
  }
  require_launched("linear_attention_backward");
}

/// Whether all can be read and written in pieces of 16 bytes.
bool reverses_in_chunks(const LinearAttentionArgs& args, const LinearAttentionGradients& to) {
  return args.q.dim(1) > 0 &&
         are_aligned<kWidest>(to.d_o, to.d_q.tensor, to.d_k.tensor, to.d_u.tensor,
                              to.d_log_a.tensor, to.d_log_b.tensor);
}

void reverse_in_chunks(const LinearAttentionArgs& args, const RecurrenceResult& forward,
                       const LinearAttentionGradients& to) {
  const int64_t B = args.q.dim(0), T = args.q.dim(1), H = args.q.dim(2), heads = B * H;
  const int K = static_cast<int>(args.q.dim(3)), V = static_cast<int>(args.u.dim(3));
  if (heads == 0) return;
  ChunkedBackward p = {};
  p.fading = {narrow(to.d_o),
              narrow(args.u),
              narrow(args.log_b),
              Result<float>(),
              Result<float>(to.d_u),
              Result<float>(to.d_log_b),
              V};
  p.steady = {narrow(args.q),
              narrow(args.k),
              narrow(args.log_a),
              Result<float>(to.d_q),
              Result<float>(to.d_k),
              Result<float>(to.d_log_a),
              K};
  p.log_s = args.log_s ? args.log_s.data<float>() : nullptr;
  p.reset = args.reset ? args.reset.data<int32_t>() : nullptr;
  p.kept = narrow(forward.kept);
  p.d_last = to.d_state ? to.d_state.data<float>() : nullptr;
  p.d_log_s = Result<float>(to.d_log_s);
  p.d_first = Result<float>(to.d_state0);
  p.steps = static_cast<int>(T);
  p.H = static_cast<int>(H);
  p.chunks = static_cast<int>((T + kChunkTokens - 1) / kChunkTokens);
  const Context& on = context(args.q);
  K <= 64 && V <= 64 ? reverse_axes<64>(on, p, heads) : reverse_axes<128>(on, p, heads);
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
