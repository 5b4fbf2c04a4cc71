#include "backends/step.h"

namespace regla {
namespace {

/// Fresh memory of that type beside x.
Tensor fresh(const Shape& shape, DType dtype, const Tensor& x) {
  return Tensor::empty(shape, dtype, x.device());
}

}  // namespace

LinearStepArgs normed(const LinearStepArgs& args) {
  LinearStepArgs step = args;
  if (!args.gain) return step;
  const Tensor& x = args.x;
  const Tensor mean = fresh({x.dim(0)}, sum_type(x.dtype()), x), inverse = Tensor::empty_like(mean);
  step.x = fresh(x.shape(), args.type, x);
  step.gain = step.bias = {};
  kernels(x.device())
      .norm({.x = x,
             .gain = args.gain.reshape({1, x.dim(1)}),
             .bias = args.bias ? args.bias.reshape({1, x.dim(1)}) : Tensor{},
             .epsilon = args.epsilon,
             .center = true},
            step.x, mean, inverse);
  return step;
}

void linear_step_by_parts(const LinearStepArgs& args) {
  const KernelTable& kernel = kernels(args.x.device());
  const Tensor x = normed(args).x;
  for (const LinearStepArgs::Part& part : args.parts) {
    const bool is_last = args.activation == Activation::None && !args.residual;
    const Tensor z = is_last ? part.y : fresh(part.y.shape(), args.type, x);
    kernel.matmul({.a = x, .b = part.weight, .bias = part.bias, .transpose_b = true}, Sink{z});
    if (is_last) continue;
    Tensor activated = z;
    if (args.activation != Activation::None) {
      activated = args.residual ? Tensor::empty_like(z) : part.y;
      kernel.gelu(z, args.activation == Activation::TanhGelu, activated);
    }
    if (args.residual) kernel.add(args.residual, activated, part.y);
  }
}

void regla_step_by_parts(const ReglaStepArgs& args, const Tensor& y) {
  const KernelTable& kernel = kernels(y.device());
  const DType A = args.v.dtype(), S = sum_type(A);
  const Shape rows = args.v.shape().drop_last();  // [B, 1, H]
  const auto features = [&](const Tensor& z, const Tensor& m0, Maximum maximum, double scale) {
    SafeExpResult result = {.features = fresh(z.shape(), A, y),
                            .log_rho = m0 ? fresh(rows, S, y) : Tensor{},
                            .m = m0 ? Tensor::empty_like(m0) : Tensor{},
                            .argmax = fresh(rows, DType::I32, y)};
    kernel.safe_exp({.z = z,
                     .rotation = args.rotation,
                     .m0 = m0,
                     .reset = {},
                     .maximum = maximum,
                     .scale = scale},
                    result);
    return result;
  };
  const SafeExpResult q = features(args.z_q, {}, Maximum::Token, args.scale);
  const SafeExpResult k = features(args.z_k, args.m, Maximum::Running, 1);
  Tensor m = args.m;
  m.copy_from(k.m);
  const Tensor log_f = Tensor::empty_like(args.v),
               o = args.gain || args.z_o ? Tensor::empty_like(y) : y;
  kernel.refined_gate(args.z_g, args.z_r, log_f);
  kernel.linear_attention_step({.q = q.features,
                                .k = k.features,
                                .u = args.v,
                                .log_a = {},
                                .log_b = log_f,
                                .log_s = k.log_rho,
                                .reset = {},
                                .state = args.state,
                                .chunk = 1,
                                .keep = false},
                               o);
  Tensor normed = o;
  if (args.gain) {
    normed = args.z_o ? Tensor::empty_like(y) : y;
    const Tensor mean = fresh(rows, S, y), inverse = fresh(rows, S, y);
    kernel.norm(
        {.x = o, .gain = args.gain, .bias = {}, .epsilon = args.epsilon, .center = args.center},
        normed, mean, inverse);
  }
  if (args.z_o) kernel.swish_gate(normed, args.z_o, y);
}

SoftmaxAttentionStepArgs turned(const SoftmaxAttentionStepArgs& args) {
  SoftmaxAttentionStepArgs turned = args;
  turned.rotation.rotary = 0;
  for (Tensor* x : {&turned.q, &turned.k}) {
    const Tensor before = *x;
    *x = Tensor::empty_like(before);
    kernels(x->device()).rope({before, args.rotation, false}, Sink{*x});
  }
  return turned;
}

}  // namespace regla
