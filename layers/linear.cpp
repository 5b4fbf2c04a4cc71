#include "layers/linear.h"

namespace regla {

Linear::Linear(const ParameterFactory& make, const std::string& name, int64_t in, int64_t out,
               double deviation)
    : weight(make.normal(name + ".weight", {out, in}, Role::Matrix, deviation)),
      bias(make.constant(name + ".bias", {out}, Role::Bias, 0)) {}

LayerNorm::LayerNorm(const ParameterFactory& make, const std::string& name, int64_t width,
                     double eps)
    : weight(make.constant(name + ".weight", {width}, Role::Vector, 1)),
      bias(make.constant(name + ".bias", {width}, Role::Vector, 0)),
      epsilon(eps),
      out(make.dtype()) {}

namespace {

StepNorm norm_of(const Token& token) {
  if (token.norm == nullptr) return {};
  return {use(token.norm->weight), use(token.norm->bias), token.norm->epsilon};
}

}  // namespace

Tensors linear_step(const Token& token, const StepLayers& layers) {
  std::vector<StepWeight> weights;
  for (const auto& [layer, out] : layers) {
    weights.push_back({use(layer->weight), use_in(out, layer->bias), out});
  }
  return linear_step(token.x, norm_of(token), weights, token.type());
}

Tensor linear_step(const Token& token, Linear& layer, std::optional<Gelu> activation) {
  const StepWeight weight = {use(layer.weight), use_in(token.type(), layer.bias), token.type()};
  return linear_step(token.x, norm_of(token), {weight}, token.type(), activation,
                     token.residual)[0];
}

Embedding::Embedding(const ParameterFactory& make, const std::string& name, int64_t vocab,
                     int64_t width, double deviation)
    : weight(make.normal(name + ".weight", {vocab, width}, Role::Table, deviation)) {}

Mlp::Mlp(const ParameterFactory& make, const std::string& name, int64_t hidden, int64_t width,
         Gelu gelu_kind, double in_deviation, double out_deviation)
    : in(make, name + ".in", hidden, width, in_deviation),
      out(make, name + ".out", width, hidden, out_deviation),
      kind(gelu_kind) {}

}  // namespace regla
