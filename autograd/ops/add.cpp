#include "autograd/ops/op.h"

namespace regla {
namespace {

struct Add : Op {
  const char* name() const override { return "add"; }

  Tensors forward(const Tensors& in) override {
    Tensor out = Tensor::empty(in[0].shape(), sum_type(in[0].dtype()), in[0].device());
    kernels_of(out).add(in[0], in[1], out);
    return {out};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    d_in[1]->give(d_out[0]);
    d_in[0]->give(std::move(d_out[0]));
  }
};

struct Scale : Op {
  double factor;
  DType to;
  Scale(double by, DType out) : factor(by), to(out) {}
  const char* name() const override { return "scale"; }

  Tensors forward(const Tensors& in) override {
    Tensor out = Tensor::empty(in[0].shape(), to, in[0].device());
    kernels_of(out).accumulate(in[0], factor, Sink{out});
    return {out};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    const Tensor& d = d_out[0];
    kernels_of(d).accumulate(d, factor, d_in[0]->sink(d));
  }

  bool is_cheap() const override { return true; }
};

struct Reshape : Op {
  Shape from, to;
  explicit Reshape(const Shape& shape) : to(shape) {}
  const char* name() const override { return "reshape"; }

  Tensors forward(const Tensors& in) override {
    from = in[0].shape();
    return {in[0].reshape(to)};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    Tensor d = d_out[0].reshape(from);
    d_out[0] = {};  // so that the memory can be handed over
    d_in[0]->give(std::move(d));
  }

  bool is_cheap() const override { return true; }
  bool narrows_gradient() const override { return true; }
};

}  // namespace

Var add(const Var& a, const Var& b) {
  check_float("add", "a", a);
  check_either("add", "b", b, a.shape(), a.value.dtype());
  return apply(Add{}, {a, b})[0];
}

Var scale(const Var& x, double factor, std::optional<DType> out) {
  check_float("scale", "x", x);
  return apply(Scale(factor, type_of_output("scale", out, x)), {x})[0];
}

Var reshape(const Var& x, const Shape& shape) { return apply(Reshape(shape), {x})[0]; }

}  // namespace regla
