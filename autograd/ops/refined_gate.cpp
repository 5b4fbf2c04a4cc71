#include "autograd/ops/op.h"

namespace regla {
namespace {

struct Sigmoid : Op {
  Tensor z;
  const char* name() const override { return "sigmoid"; }

  Tensors forward(const Tensors& in) override {
    z = in[0];
    Tensor y = Tensor::empty_like(z);
    kernels_of(z).sigmoid(z, y);
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    kernels_of(z).sigmoid_backward(z, d_out[0], d_in[0]->sink(z));
  }

  Tensor* kept(size_t) override { return &z; }
  bool is_cheap() const override { return true; }
};

struct LogSigmoid : Op {
  DType out;
  Tensor z;
  explicit LogSigmoid(DType type) : out(type) {}
  const char* name() const override { return "log_sigmoid"; }

  Tensors forward(const Tensors& in) override {
    z = in[0];
    Tensor y = Tensor::empty(z.shape(), out, z.device());
    kernels_of(z).log_sigmoid(z, y);
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    kernels_of(z).log_sigmoid_backward(z, d_out[0], d_in[0]->sink(z));
  }

  Tensor* kept(size_t) override { return &z; }
  bool is_cheap() const override { return true; }
};

struct RefinedGate : Op {
  DType out;
  Tensor z_g, z_r;
  explicit RefinedGate(DType type) : out(type) {}
  const char* name() const override { return "refined_gate"; }

  Tensors forward(const Tensors& in) override {
    z_g = in[0];
    z_r = in[1];
    Tensor log_f = Tensor::empty(z_g.shape(), out, z_g.device());
    kernels_of(z_g).refined_gate(z_g, z_r, log_f);
    return {log_f};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    kernels_of(z_g).refined_gate_backward(z_g, z_r, d_out[0], d_in[0]->sink(z_g),
                                          d_in[1]->sink(z_r));
  }

  Tensor* kept(size_t input) override { return input == 0 ? &z_g : &z_r; }
  bool is_cheap() const override { return true; }
};

}  // namespace

Var sigmoid(const Var& z) {
  check_float("sigmoid", "z", z);
  return apply(Sigmoid{}, {z})[0];
}

Var log_sigmoid(const Var& z, std::optional<DType> out) {
  check_float("log_sigmoid", "z", z);
  return apply(LogSigmoid(type_of_output("log_sigmoid", out, z)), {z})[0];
}

Var refined_gate(const Var& z_g, const Var& z_r, std::optional<DType> out) {
  check_float("refined_gate", "z_g", z_g);
  check_same("refined_gate", "z_r", z_r, z_g.shape(), z_g.value.dtype());
  return apply(RefinedGate(type_of_output("refined_gate", out, z_g)), {z_g, z_r})[0];
}

}  // namespace regla
