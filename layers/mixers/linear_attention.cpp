#include "layers/mixers/linear_attention.h"

#include <limits>

namespace regla {

LinearAttentionMixer::LinearAttentionMixer(const MixerConfig& config, const MixerSizes& sizes,
                                           const ParameterFactory& make, const std::string& name)
    : config_(config),
      heads_(sizes.heads),
      K_(feature_sizes(config, sizes.hidden / sizes.heads).K),
      V_(sizes.hidden / sizes.heads),
      sums_(make.sums()),
      device_(make.device()),
      project_(config, sizes, feature_sizes(config, V_).qk_dim, make, name),
      phi_(config, sizes, make, name),
      gate_(config, sizes, K_, V_, make, name),
      output_(config, sizes, make, name) {}

Var LinearAttentionMixer::chunked(const Var& x, const Segment& segment, MixerState* state) {
  const Inputs in = prepare(x, segment, state);
  const int64_t chunk = segment.chunk > 0 ? segment.chunk : config_.chunk;
  const Recurrence result =
      linear_attention(in.q, in.k, in.u, in.decays, segment.reset, state ? state->S : Var{}, chunk);
  if (state) {
    state->S = result.state;
    state->m = in.m;
  }
  return finish(result.o, x);
}

Tensor LinearAttentionMixer::step(const Token& token, const Tensor& positions, MixerState& state) {
  check_step_form(config_, "mixer");
  if (is_paper_form(config_)) return paper_step(token, positions, state);
  const Var x = token.read().reshape({token.x.dim(0), 1, token.x.dim(1)});
  const Inputs in = prepare(x, {.positions = positions}, &state);
  const Tensor o = linear_attention_step(in.q, in.k, in.u, in.decays, {}, state.S.value);
  if (state.m.defined()) state.m.value.copy_from(in.m.value);
  return token.added(finish(o, x).value.reshape(token.x.shape()));
}

Tensor LinearAttentionMixer::paper_step(const Token& token, const Tensor& positions,
                                        MixerState& state) {
  StepLayers layers;
  project_.add_layers(layers);
  gate_.add_layers(layers);
  output_.add_layers(layers);
  const Tensors z = linear_step(token, layers);
  const int64_t B = token.x.dim(0);
  const auto heads = [&](size_t layer) {
    return z[layer].reshape({B, 1, heads_, z[layer].dim(1) / heads_});
  };
  const ReglaToken of_heads = {.z_q = heads(0),
                               .z_k = heads(1),
                               .v = heads(2),
                               .z_g = heads(3),
                               .z_r = heads(4),
                               .z_o = z.size() > 5 ? Var(heads(5)) : Var{},
                               .rotation = project_.rotation(positions),
                               .scale = score_scale(resolved_score_scale(config_), K_)};
  const Tensor y = regla_step(of_heads, output_.norm(), state.m.value, state.S.value);
  return output_.step(Token(y.reshape(token.x.shape()), nullptr, token.residual));
}

LinearAttentionMixer::Inputs LinearAttentionMixer::prepare(const Var& x, const Segment& segment,
                                                           MixerState* state) {
  const HeadProjections::Result z = project_(x, segment);
  const Var m0 = state && carries_maximum(config_) ? state->m : Var{};
  const Features phi = phi_(z.q, z.k, z.rotation, m0, segment.reset);
  Inputs in = {phi.q, phi.k, z.v, gate_(x, segment), phi.m};
  // The normaliser of a sum norm is one more value, written as 1 (Eq. 4).
  if (config_.sum_norm) in.u = append_one(in.u);
  // A gate g that also writes: (1 - g) k u^T (Eq. 6-7), on the axis it acts on.
  LogDecays& decays = in.decays;
  if (config_.write_gate && decays.key.defined()) {
    in.k = write_gate(in.k, decays.key);
  } else if (config_.write_gate) {
    in.u = write_gate(in.u, decays.value.defined() ? decays.value : decays.scalar);
  }
  // The running maximum is one more scalar decay.
  if (phi.log_rho.defined()) {
    decays.scalar = decays.scalar.defined() ? add(decays.scalar, phi.log_rho) : phi.log_rho;
  }
  return in;
}

Var LinearAttentionMixer::finish(const Var& o, const Var& x) {
  return output_(config_.sum_norm ? sum_norm(o, changes_sign(config_.feature_map)) : o, x);
}

MixerState LinearAttentionMixer::initial_state(int64_t batch) const {
  MixerState state;
  state.S = Tensor::zeros({batch, heads_, K_, columns()}, sums_, device_);
  if (carries_maximum(config_)) {
    state.m =
        Tensor::full({batch, heads_}, -std::numeric_limits<double>::infinity(), sums_, device_);
  }
  return state;
}

void LinearAttentionMixer::parameters(ParameterList& list) {
  project_.parameters(list);
  phi_.parameters(list);
  gate_.parameters(list);
  output_.parameters(list);
}

double LinearAttentionMixer::flops_per_token(int64_t) const {
  // write k u^T, read q S
  return 4.0 * static_cast<double>(heads_ * K_ * columns()) + phi_.flops_per_token();
}

int64_t LinearAttentionMixer::state_bytes(int64_t, DType dtype) const {
  const int64_t maximum = carries_maximum(config_) ? 1 : 0;
  return heads_ * (K_ * columns() + maximum) * static_cast<int64_t>(size_of(sum_type(dtype)));
}

}  // namespace regla
