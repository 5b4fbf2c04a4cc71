#include "layers/basic.h"

#include <vector>

namespace regla {
namespace {

/// FNV-1a: the random stream of a parameter is its name.
uint64_t stream_of(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (unsigned char c : name) hash = (hash ^ c) * 0x100000001b3u;
  return hash;
}

}  // namespace

Parameter ParameterFactory::filled(const std::string& name, const Tensor& values) const {
  return {.name = name, .value = values.to(dtype_), .gradient = {}};
}

Random random_numbers(uint64_t seed, const std::string& name) { return {seed, stream_of(name)}; }

Parameter ParameterFactory::normal(const std::string& name, const Shape& shape,
                                   double deviation) const {
  const Random numbers = random_numbers(seed_, name);
  Tensor values = Tensor::empty(shape, DType::F64);
  double* value = values.data<double>();
  for (int64_t i = 0; i < values.numel(); ++i) {
    value[i] = deviation * numbers.normal(static_cast<uint64_t>(i));
  }
  return filled(name, values);
}

Parameter ParameterFactory::uniform(const std::string& name, const Shape& shape, double low,
                                    double high, double (*map)(double)) const {
  const Random numbers = random_numbers(seed_, name);
  Tensor values = Tensor::empty(shape, DType::F64);
  double* value = values.data<double>();
  for (int64_t i = 0; i < values.numel(); ++i) {
    value[i] = map(low + (high - low) * numbers.uniform(static_cast<uint64_t>(i)));
  }
  return filled(name, values);
}

Parameter ParameterFactory::constant(const std::string& name, const Shape& shape,
                                     double value) const {
  Parameter parameter = filled(name, Tensor::full(shape, value, DType::F64));
  parameter.decay = false;
  return parameter;
}

Linear::Linear(const ParameterFactory& make, const std::string& name, int64_t in, int64_t out,
               double deviation)
    : weight(make.normal(name + ".weight", {out, in}, deviation)),
      bias(make.constant(name + ".bias", {out}, 0)) {
  weight.multiplies = true;
}

LayerNorm::LayerNorm(const ParameterFactory& make, const std::string& name, int64_t width,
                     double eps)
    : weight(make.constant(name + ".weight", {width}, 1)),
      bias(make.constant(name + ".bias", {width}, 0)),
      epsilon(eps) {}

Embedding::Embedding(const ParameterFactory& make, const std::string& name, int64_t vocab,
                     int64_t width, double deviation)
    : weight(make.normal(name + ".weight", {vocab, width}, deviation)) {
  weight.decay = false;
}

Mlp::Mlp(const ParameterFactory& make, const std::string& name, int64_t hidden, int64_t width,
         Gelu gelu_kind, double in_deviation, double out_deviation)
    : in(make, name + ".in", hidden, width, in_deviation),
      out(make, name + ".out", width, hidden, out_deviation),
      kind(gelu_kind) {}

DropoutKey DropoutSource::next_key(const Var& x) {
  constexpr int64_t kPlaces = 1 << 16;
  const int64_t row = x.value.numel() / x.dim(0);
  return {.seed = seed_,
          .stream = static_cast<uint64_t>(step_ * kPlaces + place_++),
          .first = first_row_ * row};
}

}  // namespace regla
