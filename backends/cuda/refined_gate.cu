#include "backends/cuda/kernels.h"
#include "backends/cuda/map.cuh"
#include "backends/cuda/scalar_math.cuh"

// The gates: decays always as logs, log sigma(z) and log F of the refined gate, and sigma(z) itself
// for what is no decay.
//   F = (1-r) g^2 + r (1 - (1-g)^2) = g (g + 2r(1-g)),  g = sigma(z_g), r = sigma(z_r)
// (Eq. 16-18)
namespace regla::cuda {
namespace {

/// What log F and its slopes share, from exponentials of numbers that are at most 0. With
/// p = min(z_r, 0), r is e^p / (1 + b), and the two parts of F, g^2 and 2 r g (1-g), are to each
/// other as `square` and `rest`. Quotients are left to whoever reads them: few are needed.
template <class S>
struct GateParts {
  S a, b;          // e^-|z_g|, e^-|z_r|
  S not_r;         // (1 - r) (1 + b)
  S larger;        // the larger of z_g and p
  S square, rest;  // e^z_g (1 + b) and 2 e^p, over e^larger

  __device__ GateParts(S z_g, S z_r) {
    const S p = z_r < 0 ? z_r : S(0);
    a = exp_of(z_g < 0 ? z_g : -z_g);
    b = exp_of(z_r < 0 ? z_r : -z_r);
    const S c = exp_of(z_g < p ? z_g - p : p - z_g);
    not_r = z_r < 0 ? S(1) : b;
    larger = z_g < p ? p : z_g;
    square = (z_g < p ? c : S(1)) * (1 + b);
    rest = z_g < p ? S(2) : 2 * c;
  }
};

/// log F without ever forming F, which would lose all digits near 1 and underflow near 0. With
/// d = (1 + a)^2 (1 + b):
//   z_g >= 0:  F = 1 - (1-g) ((1-g) + 2 g (1-r)) = 1 - a (a (1+b) + 2 (1-r) (1+b)) / d
//   z_g < 0:   F = e^z_g e^larger (square + rest) / d
struct LogRefinedGate {
  template <class S>
  __device__ S operator()(S z_g, S z_r) const {
    const GateParts<S> gate(z_g, z_r);
    const S a = gate.a, d = (1 + a) * (1 + a) * (1 + gate.b);
    const bool near_zero = z_g < 0;
    const S missing =
        near_zero ? d - (gate.square + gate.rest) : a * (a * (1 + gate.b) + 2 * gate.not_r);
    return (near_zero ? z_g + gate.larger : S(0)) + log_without(missing, d);
  }
};

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
    return sigmoid_of(z);
  }
};

// From z, not from y: 1 - y has no digits left where y is near 1.
struct SigmoidBackward {
  template <class S>
  __device__ S operator()(S z, S d_y) const {
    return d_y * (sigmoid_of(z) * sigmoid_of(-z));
  }
};

/// ln sigmoid(z) = min(z, 0) - ln(1 + e^-|z|)
struct LogSigmoid {
  template <class S>
  __device__ S operator()(S z) const {
    return (z < 0 ? z : S(0)) - log_without(-exp_of(z < 0 ? z : -z), S(1));
  }
};

struct LogSigmoidBackward {
  template <class S>
  __device__ S operator()(S z, S d_y) const {
    return d_y * sigmoid_of(-z);
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
