#pragma once

#include <functional>
#include <string>
#include <utility>

#include "autograd/ops.h"
#include "core/random.h"

namespace regla {

/// The random numbers that belong to a name under a seed.
Random random_numbers(uint64_t seed, const std::string& name);

/// Gives the values of a parameter, of this shape and type, or throws.
using ParameterSource =
    std::function<Tensor(const std::string& name, const Shape& shape, DType dtype)>;

/// Makes parameters with reproducible initial values: element i of parameter `name` depends on the
/// seed, the name and i, so neither the order of construction nor the rest of the model matters.
class ParameterFactory {
 public:
  ParameterFactory(uint64_t seed, DType dtype, Device device = {})
      : seed_(seed), dtype_(dtype), device_(device) {}
  /// Takes the values from elsewhere: a model takes no memory that its source has not.
  ParameterFactory(ParameterSource source, DType dtype, Device device = {})
      : source_(std::move(source)), seed_(0), dtype_(dtype), device_(device) {}

  /// Normal with the given standard deviation.
  Parameter normal(const std::string& name, const Shape& shape, double deviation) const;
  /// Uniform in [low, high), each element passed through `map`.
  Parameter uniform(const std::string& name, const Shape& shape, double low, double high,
                    double (*map)(double)) const;
  Parameter constant(const std::string& name, const Shape& shape, double value) const;
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }

 private:
  /// Of the values that the source gives, else of those that `initial` makes.
  template <class F>
  Parameter filled(const std::string& name, const Shape& shape, F&& initial) const;

  ParameterSource source_;
  uint64_t seed_;
  DType dtype_;
  Device device_;
};

/// y = x weight^T + bias. weight [out, in], bias [out].
struct Linear {
  Parameter weight, bias;

  Linear(const ParameterFactory& make, const std::string& name, int64_t in, int64_t out,
         double deviation);
  Var operator()(const Var& x) { return linear(x, use(weight), use(bias)); }
  void parameters(ParameterList& list) { list.insert(list.end(), {&weight, &bias}); }
};

/// LayerNorm over the model width. weight, bias [D].
struct LayerNorm {
  Parameter weight, bias;
  double epsilon;

  LayerNorm(const ParameterFactory& make, const std::string& name, int64_t width, double eps);
  Var operator()(const Var& x) { return layer_norm(x, use(weight), use(bias), epsilon); }
  void parameters(ParameterList& list) { list.insert(list.end(), {&weight, &bias}); }
};

/// Rows by id. weight [vocab, D], without weight decay.
struct Embedding {
  Parameter weight;

  Embedding(const ParameterFactory& make, const std::string& name, int64_t vocab, int64_t width,
            double deviation);
  Var operator()(const Tensor& ids) { return embedding(ids, use(weight)); }
  void parameters(ParameterList& list) { list.push_back(&weight); }
};

/// D -> width -> D with GELU between.
struct Mlp {
  Linear in, out;
  Gelu kind;

  Mlp(const ParameterFactory& make, const std::string& name, int64_t hidden, int64_t width,
      Gelu gelu_kind, double in_deviation, double out_deviation);
  Var operator()(const Var& x) { return out(gelu(in(x), kind)); }
  void parameters(ParameterList& list) {
    in.parameters(list);
    out.parameters(list);
  }
};

/// Draws the dropout masks of one forward pass: one stream per (step, place in the model), numbered
/// along the whole batch, so that a batch in parts gets the masks of the batch in one piece.
class DropoutSource {
 public:
  DropoutSource(uint64_t seed, int64_t step, double rate, int64_t first_row = 0)
      : seed_(seed), step_(step), rate_(rate), first_row_(first_row) {}

  /// Applies the next mask to x [B, T, D].
  Var operator()(const Var& x) { return dropout(x, rate_, next_key(x)); }
  /// Goes past masks that a copy of this draws.
  void skip(int64_t masks) { place_ += masks; }
  /// residual + the same of x.
  Var added(const Var& residual, const Var& x) {
    return add_dropout(residual, x, rate_, next_key(x));
  }

 private:
  DropoutKey next_key(const Var& x);

  uint64_t seed_;
  int64_t step_;
  double rate_;
  int64_t first_row_;
  int64_t place_ = 0;
};

}  // namespace regla
