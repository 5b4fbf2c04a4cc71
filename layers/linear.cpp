#include "layers/linear.h"

namespace regla {

Linear::Linear(const ParameterFactory& make, const std::string& name, int64_t in, int64_t out,
               double deviation)
    : weight(make.normal(name + ".weight", {out, in}, Role::Matrix, deviation)),
      bias(make.constant(name + ".bias", {out}, 0)) {}

LayerNorm::LayerNorm(const ParameterFactory& make, const std::string& name, int64_t width,
                     double eps)
    : weight(make.constant(name + ".weight", {width}, 1)),
      bias(make.constant(name + ".bias", {width}, 0)),
      epsilon(eps),
      out(make.dtype()) {}

Embedding::Embedding(const ParameterFactory& make, const std::string& name, int64_t vocab,
                     int64_t width, double deviation)
    : weight(make.normal(name + ".weight", {vocab, width}, Role::Table, deviation)) {}

Mlp::Mlp(const ParameterFactory& make, const std::string& name, int64_t hidden, int64_t width,
         Gelu gelu_kind, double in_deviation, double out_deviation)
    : in(make, name + ".in", hidden, width, in_deviation),
      out(make, name + ".out", width, hidden, out_deviation),
      kind(gelu_kind) {}

}  // namespace regla
