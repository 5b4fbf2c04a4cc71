#include "autograd/ops/op.h"

namespace regla {
namespace {

/// y = (1 - e^log_g) x
struct WriteGate : Op {
  Tensor x, log_g;
  const char* name() const override { return "write_gate"; }

  Tensors forward(const Tensors& in) override {
    x = in[0];
    log_g = in[1];
    Tensor y = Tensor::empty_like(x);
    kernels_of(y).write_gate(x, log_g, y);
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    kernels_of(x).write_gate_backward(x, log_g, d_out[0], d_in[0]->sink(x), d_in[1]->sink(log_g));
  }

  Tensor* kept(size_t input) override { return input == 0 ? &x : &log_g; }
  bool is_cheap() const override { return true; }
};

}  // namespace

Var write_gate(const Var& x, const Var& log_g) {
  check_rank("write_gate", "x", x, 4);
  check(x.dim(3) > 0, "[write_gate] expected a non-empty inner axis, got ", x.shape());
  const bool per_head = log_g.defined() && log_g.value.rank() == 3;
  check_either("write_gate", "log_g", log_g, per_head ? x.shape().drop_last() : x.shape(),
               x.value.dtype());
  return apply(WriteGate{}, {x, log_g})[0];
}

}  // namespace regla
