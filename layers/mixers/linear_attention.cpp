#include "layers/mixers/linear_attention.h"

#include <limits>

namespace regla {

LinearAttentionMixer::LinearAttentionMixer(const MixerConfig& config, const MixerSizes& sizes,
                                           const ParameterFactory& make, const std::string& name)
    : config_(config),
      heads_(sizes.heads),
      K_(config.feature_dim > 0 ? config.feature_dim : sizes.hidden / sizes.heads),
      V_(sizes.hidden / sizes.heads),
      dtype_(make.dtype()),
      query_(make, name + ".query", sizes.hidden, heads_ * K_, sizes.deviation),
      key_(make, name + ".key", sizes.hidden, heads_ * K_, sizes.deviation),
      value_(make, name + ".value", sizes.hidden, heads_ * V_, sizes.deviation),
      gate_(config, sizes, config.gate_axis == GateAxis::Key ? K_ : V_, make, name),
      output_(make, name + ".output", heads_ * V_, sizes.hidden, sizes.output_deviation) {
  if (config.norm != MixerNorm::None) norm_ = make.constant(name + ".norm.weight", {heads_, V_}, 1);
}

Var LinearAttentionMixer::chunked(const Var& x, const Segment& segment, MixerState* state) {
  const Inputs in = prepare(x, segment.reset, state);
  const int64_t chunk = segment.chunk > 0 ? segment.chunk : config_.chunk;
  const LinearAttention result =
      linear_attention(in.q, in.k, in.u, in.decays, segment.reset, state ? state->S : Var{}, chunk);
  if (state) {
    state->S = result.state;
    state->m = in.m;
  }
  return finish(result.o);
}

Tensor LinearAttentionMixer::step(const Tensor& x, MixerState& state) {
  const Var token = x.reshape({x.dim(0), 1, x.dim(1)});
  const Inputs in = prepare(token, {}, &state);
  const Tensor o = linear_attention_step(in.q, in.k, in.u, in.decays, {}, state.S.value);
  state.m = in.m;
  return finish(o).value.reshape(x.shape());
}

LinearAttentionMixer::Inputs LinearAttentionMixer::prepare(const Var& x, const Tensor& reset,
                                                           MixerState* state) {
  const int64_t B = x.dim(0), steps = x.dim(1);
  Tensor from_zero;
  Tensor& next = state ? state->position : from_zero;
  const Tensor positions = segment_positions(B, steps, reset, next);
  // The heads are split off before phi, and positions turn what phi is applied to.
  const auto heads = [&](const Var& z, int64_t size) {
    return reshape(z, {B, steps, heads_, size});
  };
  const auto turned = [&](const Var& z) {
    return rope(heads(z, K_), positions, rotary_dim(config_, K_), config_.rope_base);
  };
  const Features phi = feature_map(config_, turned(query_(x)), turned(key_(x)),
                                   state && carries_maximum(config_) ? state->m : Var{}, reset);
  Inputs in = {phi.q, phi.k, heads(value_(x), V_), gate_(x), phi.m};
  // The running maximum is one more scalar decay.
  if (phi.log_rho.defined()) {
    Var& scalar = in.decays.scalar;
    scalar = scalar.defined() ? add(scalar, phi.log_rho) : phi.log_rho;
  }
  return in;
}

Var LinearAttentionMixer::finish(const Var& o) {
  const bool center = config_.norm == MixerNorm::LayerNorm;
  const Var stable = norm_ ? head_norm(o, use(*norm_), config_.norm_epsilon, center) : o;
  return output_(reshape(stable, {o.dim(0), o.dim(1), heads_ * V_}));
}

MixerState LinearAttentionMixer::initial_state(int64_t batch) const {
  MixerState state;
  state.S = Tensor::zeros({batch, heads_, K_, V_}, dtype_);
  if (carries_maximum(config_)) {
    state.m = Tensor::full({batch, heads_}, -std::numeric_limits<double>::infinity(), dtype_);
  }
  state.position = Tensor::zeros({batch}, DType::I32);
  return state;
}

void LinearAttentionMixer::parameters(ParameterList& list) {
  query_.parameters(list);
  key_.parameters(list);
  value_.parameters(list);
  gate_.parameters(list);
  if (norm_) list.push_back(&*norm_);
  output_.parameters(list);
}

double LinearAttentionMixer::flops_per_token(int64_t) const {
  return 4.0 * static_cast<double>(heads_ * K_ * V_);  // write k u^T, read q S
}

int64_t LinearAttentionMixer::state_bytes(int64_t, DType dtype) const {
  const int64_t maximum = carries_maximum(config_) ? 1 : 0;
  return heads_ * (K_ * V_ + maximum) * static_cast<int64_t>(size_of(dtype));
}

}  // namespace regla
