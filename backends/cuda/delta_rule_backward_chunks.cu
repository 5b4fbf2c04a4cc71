#include "backends/cuda/delta_rule.cuh"
#include "backends/cuda/delta_rule_backward_states.cuh"

namespace regla::cuda {
namespace {

constexpr int kSegment = 8;  // chunks, where heads alone are too few blocks

template <int N, int kBuffers>
void launch(const Context& on, int64_t heads, const DeltaRuleBackward& p, int segments) {
  constexpr size_t kBytes = sizeof(DeltaBackwardMemory<N, kBuffers>);
  ask_for_shared(reverse_delta_chunks<N, kBuffers>, kBytes);
  const dim3 grid(static_cast<unsigned>(heads), static_cast<unsigned>(segments));
  reverse_delta_chunks<N, kBuffers><<<grid, 2 * N, kBytes, on.stream>>>(p);
}

/// The gradients of the states behind segments but the last one.
Tensor find_ends(const Context& on, int64_t heads, DeltaRuleBackward& p, int segments) {
  Tensor ends = Tensor::empty({heads, segments - 1, p.K, p.V}, DType::F32, on.device);
  p.d_ends = ends.data<float>();
  DeltaRuleBackward walk = p;
  walk.v = p.d_o;
  p.K <= 64 ? launch_walk<DeltaGradientColumns<64>>(on, heads, walk)
            : launch_walk<DeltaGradientColumns<128>>(on, heads, walk);
  return ends;
}

}  // namespace

void delta_rule_backward_chunks(const DeltaRuleArgs& args, const RecurrenceResult& forward,
                                const DeltaRuleGradients& to) {
  DeltaRuleBackward p = {chunks_of(args),
                         narrow(to.d_o),
                         narrow(forward.kept),
                         to.d_state ? to.d_state.data<float>() : nullptr,
                         nullptr,
                         0,
                         Result<float>(to.d_q),
                         Result<float>(to.d_k),
                         Result<float>(to.d_v),
                         Result<float>(to.d_g),
                         Result<float>(to.d_state0)};
  const int64_t heads = args.q.dim(0) * p.H;
  if (heads == 0) return;
  const Context& on = context(args.q);
  const bool is_wide = p.K > 64 || p.V > 64;
  p.segment = (is_wide ? 2 : 1) * heads >= on.multiprocessors ? std::max(p.chunks, 1) : kSegment;
  const int segments = std::max(1, (p.chunks + p.segment - 1) / p.segment);
  const Tensor ends = segments > 1 ? find_ends(on, heads, p, segments) : Tensor{};
  if (is_wide) {
    launch<128, 1>(on, heads, p, segments);
  } else if (heads * segments > on.multiprocessors) {
    // Two blocks in a multiprocessor hide each other's loads; one alone needs to load ahead.
    launch<64, 1>(on, heads, p, segments);
  } else {
    launch<64, 2>(on, heads, p, segments);
  }
  require_launched("delta_rule_backward");
}

}  // namespace regla::cuda
