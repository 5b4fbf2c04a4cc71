#include "backends/cuda/delta_rule.cuh"
#include "backends/cuda/delta_rule_chunks.cuh"

namespace regla::cuda {
namespace {

template <int K>
void launch(const Context& on, int64_t heads, const DeltaRuleForward& p) {
  launch_walk<DeltaColumns<K>>(on, heads, p);
  require_launched("delta_rule");
}

}  // namespace

bool takes_chunks(const DeltaRuleArgs& args) {
  const auto fits = [](int64_t size) { return size % 16 == 0 && size > 0 && size <= 128; };
  return args.q.dtype() == DType::BF16 && fits(args.q.dim(3)) && fits(args.v.dim(3)) &&
         are_aligned<kWidest>(args.q, args.k, args.v);
}

DeltaRuleChunks chunks_of(const DeltaRuleArgs& args) {
  DeltaRuleChunks p = {};
  p.q = narrow(args.q);
  p.k = narrow(args.k);
  p.v = narrow(args.v);
  p.g = args.g.data<float>();
  p.reset = args.reset ? args.reset.data<int32_t>() : nullptr;
  p.steps = args.q.dim(1);
  p.chunks = static_cast<int>((p.steps + kChunkTokens - 1) / kChunkTokens);
  p.H = static_cast<int>(args.q.dim(2));
  p.K = static_cast<int>(args.q.dim(3));
  p.V = static_cast<int>(args.v.dim(3));
  return p;
}

void delta_rule_chunks(const DeltaRuleArgs& args, RecurrenceResult& result) {
  DeltaRuleForward p = {chunks_of(args), nullptr, nullptr, nullptr, nullptr};
  const int64_t heads = args.q.dim(0) * p.H;
  if (args.keep && !result.kept.defined()) {
    result.kept = Tensor::empty({heads, p.chunks, p.K, p.V}, DType::BF16, args.q.device());
  }
  if (heads == 0) return;
  p.first = args.state ? args.state.data<float>() : nullptr;
  p.o = static_cast<Bf16*>(storage_of<float>(result.o));
  p.last = result.state.data<float>();
  p.kept = args.keep ? static_cast<Bf16*>(storage_of<float>(result.kept)) : nullptr;
  const Context& on = context(result.o);
  p.K <= 64 ? launch<64>(on, heads, p) : launch<128>(on, heads, p);
}

}  // namespace regla::cuda
