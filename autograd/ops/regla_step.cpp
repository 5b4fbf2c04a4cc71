#include "autograd/ops/op.h"

namespace regla {

Tensor regla_step(const ReglaToken& token, const HeadNorm& norm, const Tensor& m,
                  const Tensor& state) {
  constexpr const char* kOp = "regla_step";
  check_rank(kOp, "z_q", token.z_q, 4);
  check_rank(kOp, "v", token.v, 4);
  const Shape shape = token.v.shape(), features = token.z_q.shape();
  const DType A = token.v.value.dtype();
  const int64_t B = shape[0], H = shape[2];
  check(shape[1] == 1, "[", kOp, "] expected one token, got ", shape);
  check_either(kOp, "z_q", token.z_q, {B, 1, H, features[3]}, A);
  check_either(kOp, "z_k", token.z_k, features, A);
  check_same(kOp, "z_g", token.z_g, shape, A);
  check_same(kOp, "z_r", token.z_r, shape, A);
  if (token.z_o.defined()) check_same(kOp, "z_o", token.z_o, shape, A);
  check_rotation(kOp, token.z_q, token.rotation);
  if (norm.gain.defined()) check_sum(kOp, "gain", norm.gain, {H, shape[3]}, A);
  check_sum(kOp, "m", m, {B, H}, A);
  check_sum(kOp, "state", state, {B, H, features[3], shape[3]}, A);
  check(Tape::current() == nullptr, "[", kOp, "] has no gradient: use chunks to train");
  const Tensor y = Tensor::empty_like(token.v.value);
  kernels_of(y).regla_step({.z_q = token.z_q.value,
                            .z_k = token.z_k.value,
                            .v = token.v.value,
                            .z_g = token.z_g.value,
                            .z_r = token.z_r.value,
                            .z_o = token.z_o.value,
                            .rotation = token.rotation,
                            .scale = token.scale,
                            .gain = norm.gain.value,
                            .epsilon = norm.epsilon,
                            .center = norm.center,
                            .m = m,
                            .state = state},
                           y);
  return y;
}

}  // namespace regla
