#include "autograd/ops/op.h"

namespace regla {
namespace {

struct Norm : Op {
  NormArgs args;
  DType out;
  Tensor mean, inverse;
  Norm(double epsilon, bool center, DType type) : args{{}, {}, {}, epsilon, center}, out(type) {}
  const char* name() const override { return args.center ? "layer_norm" : "rms_norm"; }

  Tensors forward(const Tensors& in) override {
    args.x = in[0];
    args.gain = in[1];
    args.bias = in[2];
    const Shape rows = args.x.shape().drop_last();
    mean = Tensor::empty(rows, sum_type(out), args.x.device());
    inverse = Tensor::empty(rows, sum_type(out), args.x.device());
    Tensor y = Tensor::empty(args.x.shape(), out, args.x.device());
    kernels_of(y).norm(args, y, mean, inverse);
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    kernels_of(args.x).norm_backward(args, mean, inverse, d_out[0], d_in[0]->sink(args.x),
                                     d_in[1]->sink(args.gain),
                                     args.bias ? d_in[2]->sink(args.bias) : Sink{});
  }

  Tensor* kept_input(size_t input) override {
    return input == 0 ? &args.x : input == 1 ? &args.gain : &args.bias;
  }
  bool is_cheap() const override { return true; }
};

}  // namespace

Var layer_norm(const Var& x, const Var& gain, const Var& bias, double epsilon,
               std::optional<DType> out) {
  check_float("layer_norm", "x", x);
  check(x.value.rank() >= 1 && x.dim(-1) > 0, "[layer_norm] expected a non-empty inner axis, got ",
        x.shape());
  check_sum("layer_norm", "gain", gain, {x.dim(-1)}, x.value.dtype());
  check_sum("layer_norm", "bias", bias, {x.dim(-1)}, x.value.dtype());
  return apply(Norm(epsilon, true, type_of_output("layer_norm", out, x)), {x, gain, bias})[0];
}

Var head_norm(const Var& x, const Var& gain, double epsilon, bool center,
              std::optional<DType> out) {
  check_rank("head_norm", "x", x, 4);
  check(x.dim(3) > 0, "[head_norm] expected a non-empty inner axis, got ", x.shape());
  check_sum("head_norm", "gain", gain, {x.dim(2), x.dim(3)}, x.value.dtype());
  return apply(Norm(epsilon, center, type_of_output("head_norm", out, x)), {x, gain, Var{}})[0];
}

}  // namespace regla
