#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "autograd/ops.h"
#include "layers/parameters.h"

namespace regla {

/// y = x weight^T + bias. weight [out, in], bias [out], read in the type of y: that of x unless
/// told. Cut into heads where there are some.
struct Linear {
  Parameter weight, bias;

  Linear(const ParameterFactory& make, const std::string& name, int64_t in, int64_t out,
         double deviation);
  Var operator()(const Var& x, std::optional<DType> type = {}, int64_t heads = 0) {
    const DType out = type.value_or(x.value.dtype());
    return linear(x, use(weight), use_in(out, bias), out, heads);
  }
  void parameters(ParameterList& list) { list.insert(list.end(), {&weight, &bias}); }
};

/// LayerNorm over the model width, which gives activations. weight, bias [D].
struct LayerNorm {
  Parameter weight, bias;
  double epsilon;
  DType out;

  LayerNorm(const ParameterFactory& make, const std::string& name, int64_t width, double eps);
  Var operator()(const Var& x) { return layer_norm(x, use(weight), use(bias), epsilon, out); }
  void parameters(ParameterList& list) { list.insert(list.end(), {&weight, &bias}); }
};

/// A token of each sequence that is decoded, as a layer meets it: it reads x [B, D] or the norm of
/// it, and what it gives [B, D] is added to a residual. Without gradients.
struct Token {
  Tensor x;
  LayerNorm* norm;  // null: none
  Tensor residual;  // undefined: none

  Token(Tensor values, LayerNorm* norm_of_it = nullptr, Tensor added_to = {})  // NOLINT
      : x(std::move(values)), norm(norm_of_it), residual(std::move(added_to)) {}

  /// The type that layers read, and what they read.
  DType type() const { return norm ? norm->out : x.dtype(); }
  Tensor read() const { return norm ? (*norm)(x).value : x; }
  /// What becomes of a layer's result.
  Tensor added(const Tensor& y) const { return residual ? add(residual, y).value : y; }
};

/// Linear layers with the types of what they give, for a token.
using StepLayers = std::vector<std::pair<Linear*, DType>>;
/// What they give of it, each without a residual: one pass over all of their weights.
Tensors linear_step(const Token& token, const StepLayers& layers);
/// What one gives, added to the residual.
Tensor linear_step(const Token& token, Linear& layer, std::optional<Gelu> activation = {});

/// Rows by id, exact. weight [vocab, D].
struct Embedding {
  Parameter weight;

  Embedding(const ParameterFactory& make, const std::string& name, int64_t vocab, int64_t width,
            double deviation);
  Var operator()(const Tensor& ids) { return embedding(ids, use_master(weight)); }
  void parameters(ParameterList& list) { list.push_back(&weight); }
};

/// D -> width -> D with GELU between.
struct Mlp {
  Linear in, out;
  Gelu kind;

  Mlp(const ParameterFactory& make, const std::string& name, int64_t hidden, int64_t width,
      Gelu gelu_kind, double in_deviation, double out_deviation);
  Var operator()(const Var& x) { return out(gelu(in(x), kind)); }
  Tensor step(const Token& token) {
    const Tensor hidden = linear_step(Token(token.x, token.norm), in, kind);
    return linear_step(Token(hidden, nullptr, token.residual), out);
  }
  void parameters(ParameterList& list) {
    in.parameters(list);
    out.parameters(list);
  }
};

}  // namespace regla
