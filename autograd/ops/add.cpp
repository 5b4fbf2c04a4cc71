#include "autograd/ops/op.h"

namespace regla {
namespace {

struct Add : Op {
  const char* name() const override { return "add"; }

  Tensors forward(const Tensors& in) override {
    Tensor out = Tensor::empty_like(in[0]);
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
  explicit Scale(double by) : factor(by) {}
  const char* name() const override { return "scale"; }

  Tensors forward(const Tensors& in) override {
    Tensor out = Tensor::empty_like(in[0]);
    kernels_of(out).accumulate(in[0], factor, Sink{out});
    return {out};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    kernels_of(d_out[0]).accumulate(d_out[0], factor, d_in[0]->sink(d_out[0]));
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
};

}  // namespace

Var add(const Var& a, const Var& b) {
  check_float("add", "a", a);
  check_same("add", "b", b, a.shape(), a.value.dtype());
  return apply(Add{}, {a, b})[0];
}

Var scale(const Var& x, double factor) {
  check_float("scale", "x", x);
  return apply(Scale(factor), {x})[0];
}

Var reshape(const Var& x, const Shape& shape) { return apply(Reshape(shape), {x})[0]; }

}  // namespace regla
