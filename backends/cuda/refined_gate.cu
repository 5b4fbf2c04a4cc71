#include "backends/cuda/kernels.h"
#include "backends/cuda/map.cuh"
#include "backends/cuda/refined_gate.cuh"

// The gates: decays always as logs, log sigma(z) and log F of the refined gate, and sigma(z) itself
// for what is no decay.
//   F = (1-r) g^2 + r (1 - (1-g)^2) = g (g + 2r(1-g)),  g = sigma(z_g), r = sigma(z_r)
// (Eq. 16-18)
namespace regla::cuda {
namespace {

/// d log F / d z_g = (1-g)(1+w) - (1-w) g = (1-g)(2(1-r)w + 1-w)  and
/// d log F / d z_r = (1-w)(1-r), where w is the share of g^2 in F. Only sums of what is positive:
/// nothing cancels as F approaches 1. With w = square / (square + rest), all over one denominator.
struct RefinedGateBackward {
  template <class S>
  __device__ Pair<S> operator()(S z_g, S z_r, S d_log_f) const {
    const GateParts<S> gate(z_g, z_r);
    const S a1 = 1 + gate.a, b1 = 1 + gate.b;
    const S scale = d_log_f * reciprocal((gate.square + gate.rest) * a1 * b1);
    const S not_g = z_g < 0 ? S(1) : gate.a;  // (1 - g) (1 + a)
    return {scale * not_g * (2 * gate.not_r * gate.square + gate.rest * b1),
            scale * a1 * gate.rest * gate.not_r};
  }
};

struct Sigmoid {
  template <class S>
  __device__ S operator()(S z) const {
    return precise_sigmoid(z);
  }
};

// From z, not from y: 1 - y has no digits left where y is near 1.
struct SigmoidBackward {
  template <class S>
  __device__ S operator()(S z, S d_y) const {
    return d_y * (precise_sigmoid(z) * precise_sigmoid(-z));
  }
};

/// ln sigmoid(z) = min(z, 0) - ln(1 + e^-|z|)
struct LogSigmoid {
  template <class S>
  __device__ S operator()(S z) const {
    return (z < 0 ? z : S(0)) - precise_log_without(-precise_exp(z < 0 ? z : -z), S(1));
  }
};

struct LogSigmoidBackward {
  template <class S>
  __device__ S operator()(S z, S d_y) const {
    return d_y * precise_sigmoid(-z);
  }
};

}  // namespace

void sigmoid(const Tensor& z, Tensor y) {
  for_sum_type(z.dtype(), "sigmoid", [&](auto tag) { map<decltype(tag)>(Sigmoid{}, Sink{y}, z); });
}

void sigmoid_backward(const Tensor& z, const Tensor& d_y, Sink d_z) {
  for_sum_type(z.dtype(), "sigmoid",
               [&](auto tag) { map<decltype(tag)>(SigmoidBackward{}, d_z, z, d_y); });
}

void log_sigmoid(const Tensor& z, Tensor y) {
  for_sum_type(z.dtype(), "log_sigmoid",
               [&](auto tag) { map<decltype(tag)>(LogSigmoid{}, Sink{y}, z); });
}

void log_sigmoid_backward(const Tensor& z, const Tensor& d_y, Sink d_z) {
  for_sum_type(z.dtype(), "log_sigmoid",
               [&](auto tag) { map<decltype(tag)>(LogSigmoidBackward{}, d_z, z, d_y); });
}

void refined_gate(const Tensor& z_g, const Tensor& z_r, Tensor log_f) {
  for_sum_type(z_g.dtype(), "refined_gate",
               [&](auto tag) { map<decltype(tag)>(LogRefinedGate{}, Sink{log_f}, z_g, z_r); });
}

void refined_gate_backward(const Tensor& z_g, const Tensor& z_r, const Tensor& d_log_f, Sink d_z_g,
                           Sink d_z_r) {
  for_sum_type(z_g.dtype(), "refined_gate", [&](auto tag) {
    map_pair<decltype(tag)>(RefinedGateBackward{}, d_z_g, d_z_r, z_g, z_r, d_log_f);
  });
}

}  // namespace regla::cuda
