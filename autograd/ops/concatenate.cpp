#include "autograd/ops/op.h"
#include "backends/copies.h"

namespace regla {
namespace {

Shape with_length(const Shape& shape, int64_t length) {
  std::vector<int64_t> sizes(shape.sizes().begin(), shape.sizes().end());
  sizes[1] = length;
  return Shape(std::span<const int64_t>(sizes));
}

struct Concatenate : Op {
  Shape a, b;
  const char* name() const override { return "concatenate"; }

  Tensors forward(const Tensors& in) override {
    a = in[0].shape();
    b = in[1].shape();
    Tensor out = Tensor::empty(with_length(a, a[1] + b[1]), in[0].dtype(), in[0].device());
    copy_rows(in[0], 0, a[1], out, 0);
    copy_rows(in[1], 0, b[1], out, a[1]);
    return {out};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    const auto give = [&](Gradient& gradient, const Shape& shape, int64_t begin) {
      if (!gradient.wanted()) return;
      Tensor part = Tensor::empty(shape, d_out[0].dtype(), d_out[0].device());
      copy_rows(d_out[0], begin, shape[1], part, 0);
      gradient.give(std::move(part));
    };
    give(*d_in[0], a, 0);
    give(*d_in[1], b, a[1]);
  }
};

struct Last : Op {
  int64_t count;
  Shape from;
  explicit Last(int64_t rows) : count(rows) {}
  const char* name() const override { return "last"; }

  Tensors forward(const Tensors& in) override {
    from = in[0].shape();
    Tensor out = Tensor::empty(with_length(from, count), in[0].dtype(), in[0].device());
    copy_rows(in[0], from[1] - count, count, out, 0);
    return {out};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    Tensor whole = Tensor::zeros(from, d_out[0].dtype(), d_out[0].device());
    copy_rows(d_out[0], 0, count, whole, from[1] - count);
    d_in[0]->give(std::move(whole));
  }
};

}  // namespace

Var concatenate(const Var& a, const Var& b) {
  check(b.defined() && b.value.rank() >= 2, "[concatenate] expected at least two axes");
  if (!a.defined()) return b;
  check(a.value.rank() >= 2, "[concatenate] expected at least two axes, got ", a.shape());
  check_same("concatenate", "b", b, with_length(a.shape(), b.dim(1)), a.value.dtype());
  return apply(Concatenate{}, {a, b})[0];
}

Var last(const Var& x, int64_t count) {
  check(x.defined() && x.value.rank() >= 2 && count >= 0 && count <= x.dim(1),
        "[last] expected 0 to the length of the second axis, got ", count);
  return count == x.dim(1) ? x : apply(Last(count), {x})[0];
}

}  // namespace regla
