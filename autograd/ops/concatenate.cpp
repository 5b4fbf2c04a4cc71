#include "autograd/ops/op.h"
#include "backends/copies.h"

namespace regla {
namespace {

struct Concatenate : Op {
  int64_t a, b;  // lengths
  const char* name() const override { return "concatenate"; }

  Tensors forward(const Tensors& in) override {
    a = in[0].dim(1);
    b = in[1].dim(1);
    Tensor out = copied_rows(in[0], 0, a, a + b);
    copy_rows(in[1], 0, b, out, a);
    return {out};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    if (d_in[0]->wanted()) d_in[0]->give(copied_rows(d_out[0], 0, a));
    if (d_in[1]->wanted()) d_in[1]->give(copied_rows(d_out[0], a, b));
  }
};

struct Last : Op {
  int64_t count;
  Shape from;
  explicit Last(int64_t rows) : count(rows) {}
  const char* name() const override { return "last"; }

  Tensors forward(const Tensors& in) override {
    from = in[0].shape();
    return {copied_rows(in[0], from[1] - count, count)};
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
  check_same("concatenate", "b", b, a.shape().with(1, b.dim(1)), a.value.dtype());
  return apply(Concatenate{}, {a, b})[0];
}

Var last(const Var& x, int64_t count) {
  check(x.defined() && x.value.rank() >= 2 && count >= 0 && count <= x.dim(1),
        "[last] expected 0 to the length of the second axis, got ", count);
  return count == x.dim(1) ? x : apply(Last(count), {x})[0];
}

}  // namespace regla
