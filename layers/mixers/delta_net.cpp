#include "layers/mixers/delta_net.h"

namespace regla {

DeltaNetMixer::DeltaNetMixer(const MixerConfig& config, const MixerSizes& sizes,
                             const ParameterFactory& make, const std::string& name)
    : heads_(sizes.heads),
      K_(feature_sizes(config, sizes.hidden / sizes.heads).K),
      V_(sizes.hidden / sizes.heads),
      chunk_(config.chunk),
      sums_(make.sums()),
      device_(make.device()),
      project_(config, sizes, feature_sizes(config, V_).qk_dim, make, name),
      phi_(config, sizes, make, name),
      strength_(config, sizes, make, name),
      output_(config, sizes, make, name) {
  if (!sums_to_constant(config.feature_map)) unit_.emplace(make, heads_, K_);
}

DeltaNetMixer::Inputs DeltaNetMixer::prepare(const Var& x, const Segment& segment) {
  const HeadProjections::Result z = project_(x, segment);
  const Features phi = phi_(z.q, z.k, z.rotation, {}, segment.reset);
  return {phi.q, unit_ ? (*unit_)(phi.k) : phi.k, z.v, strength_(x)};
}

Var DeltaNetMixer::chunked(const Var& x, const Segment& segment, MixerState* state) {
  const Inputs in = prepare(x, segment);
  const Recurrence result =
      delta_rule(in.q, in.k, in.v, in.g, segment.reset, state ? state->S : Var{},
                 segment.chunk > 0 ? segment.chunk : chunk_);
  if (state) state->S = result.state;
  return output_(result.o, x);
}

Tensor DeltaNetMixer::step(const Token& token, const Tensor& positions, MixerState& state) {
  const Var x = token.read().reshape({token.x.dim(0), 1, token.x.dim(1)});
  const Inputs in = prepare(x, {.positions = positions});
  const Tensor o = delta_rule_step(in.q, in.k, in.v, in.g, {}, state.S.value);
  return token.added(output_(o, x).value.reshape(token.x.shape()));
}

MixerState DeltaNetMixer::initial_state(int64_t batch) const {
  MixerState state;
  state.S = Tensor::zeros({batch, heads_, K_, V_}, sums_, device_);
  return state;
}

void DeltaNetMixer::parameters(ParameterList& list) {
  project_.parameters(list);
  phi_.parameters(list);
  strength_.parameters(list);
  output_.parameters(list);
}

double DeltaNetMixer::flops_per_token(int64_t) const {
  // read k^T S, write k u^T, read q S
  return 6.0 * static_cast<double>(heads_ * K_ * V_) + phi_.flops_per_token();
}

int64_t DeltaNetMixer::state_bytes(int64_t, DType dtype) const {
  return heads_ * K_ * V_ * static_cast<int64_t>(size_of(sum_type(dtype)));
}

}  // namespace regla
