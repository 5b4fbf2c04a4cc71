#include "autograd/ops/op.h"

namespace regla {
namespace {

struct RelativeError : Op {
  Tensor x, y, error;
  explicit RelativeError(Tensor constant) : y(std::move(constant)) {}
  const char* name() const override { return "relative_error"; }

  Tensors forward(const Tensors& in) override {
    x = in[0];
    error = Tensor::empty({2}, DType::F64, x.device());
    kernels_of(x).relative_error(x, y, error);
    return {error.slice(0, 1)};
  }

  Tensor* kept_input(size_t) override { return &x; }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    kernels_of(x).relative_error_backward(x, y, error, d_out[0], d_in[0]->sink(x));
  }
};

}  // namespace

Var relative_error(const Var& x, const Tensor& y) {
  check_float("relative_error", "x", x);
  check_same("relative_error", "y", y, x.shape(), x.value.dtype());
  check(x.value.numel() > 0, "[relative_error] expected elements, got ", x.shape());
  return apply(RelativeError(y), {x})[0];
}

}  // namespace regla
