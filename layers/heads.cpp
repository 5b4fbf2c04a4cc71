#include "layers/heads.h"

namespace regla {

HeadProjections::HeadProjections(const MixerConfig& config, const MixerSizes& sizes, int64_t qk_dim,
                                 const ParameterFactory& make, const std::string& name)
    : heads_(sizes.heads),
      qk_dim_(qk_dim),
      V_(sizes.hidden / sizes.heads),
      rotary_(rotary_dim(config, qk_dim)),
      rope_base_(config.rope_base),
      qk_type_(takes_exact(config) ? make.sums() : make.dtype()),
      v_type_(make.dtype()),
      query_(make, name + ".query", sizes.hidden, heads_ * qk_dim, sizes.deviation),
      key_(make, name + ".key", sizes.hidden, heads_ * qk_dim, sizes.deviation),
      value_(make, name + ".value", sizes.hidden, heads_ * V_, sizes.deviation) {}

HeadProjections::Result HeadProjections::operator()(const Var& x, const Segment& segment) {
  const int64_t B = x.dim(0), steps = x.dim(1);
  Tensor from_zero;
  const Tensor positions =
      segment.positions ? segment.positions
                        : segment_positions(B, steps, segment.reset, from_zero, x.value.device());
  const Result result = {query_(x, qk_type_, heads_), key_(x, qk_type_, heads_),
                         value_(x, v_type_, heads_), rotation(positions)};
  if (segment.observer) {
    segment.show("query", rope(result.q, result.rotation));
    segment.show("key", rope(result.k, result.rotation));
  }
  return result;
}

HeadProjections::Result HeadProjections::step(const Token& token, const Tensor& positions) {
  StepLayers layers;
  add_layers(layers);
  const Tensors z = linear_step(token, layers);
  const auto heads = [&](const Tensor& x, int64_t size) {
    return x.reshape({token.x.dim(0), 1, heads_, size});
  };
  return {heads(z[0], qk_dim_), heads(z[1], qk_dim_), heads(z[2], V_), rotation(positions)};
}

void HeadProjections::add_layers(StepLayers& layers) {
  layers.insert(layers.end(), {{&query_, qk_type_}, {&key_, qk_type_}, {&value_, v_type_}});
}

void HeadProjections::parameters(ParameterList& list) {
  query_.parameters(list);
  key_.parameters(list);
  value_.parameters(list);
}

HeadOutput::HeadOutput(const MixerConfig& config, const MixerSizes& sizes,
                       const ParameterFactory& make, const std::string& name)
    : center_(config.norm == MixerNorm::LayerNorm),
      epsilon_(config.norm_epsilon),
      type_(make.dtype()),
      output_(make, name + ".output", sizes.hidden, sizes.hidden, sizes.output_deviation) {
  const Shape values = {sizes.heads, sizes.hidden / sizes.heads};
  if (config.norm != MixerNorm::None)
    norm_ = make.constant(name + ".norm.weight", values, Role::Vector, 1);
  if (config.output_gate == OutputGate::Swish) {
    gate_.emplace(make, name + ".output_gate", sizes.hidden, sizes.hidden, sizes.deviation);
  }
}

Var HeadOutput::operator()(const Var& o, const Var& x) {
  const Var stable = norm_ ? head_norm(o, use(*norm_), epsilon_, center_) : o;
  const Var y = reshape(stable, x.shape());
  return output_(gate_ ? swish_gate(y, (*gate_)(x)) : y);
}

void HeadOutput::add_layers(StepLayers& layers) {
  if (gate_) layers.emplace_back(&*gate_, type_);
}

HeadNorm HeadOutput::norm() { return {norm_ ? use(*norm_) : Var{}, epsilon_, center_}; }

void HeadOutput::parameters(ParameterList& list) {
  if (norm_) list.push_back(&*norm_);
  if (gate_) gate_->parameters(list);
  output_.parameters(list);
}

}  // namespace regla
