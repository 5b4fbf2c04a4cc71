#pragma once

#include "backends/cuda/precise_math.cuh"

// log F of the refined gate (Eq. 16-18) from its two pre-activations.
namespace regla::cuda {

/// What log F and its slopes share, from exponentials of numbers that are at most 0. With
/// p = min(z_r, 0), r is e^p / (1 + b), and the two parts of F, g^2 and 2 r g (1-g), are to each
/// other as `square` and `rest`. Quotients are left to whoever reads them: few are needed.
template <class S, Digits kDigits = Digits::All>
struct GateParts {
  S a, b;          // e^-|z_g|, e^-|z_r|
  S not_r;         // (1 - r) (1 + b)
  S larger;        // the larger of z_g and p
  S square, rest;  // e^z_g (1 + b) and 2 e^p, over e^larger

  __device__ GateParts(S z_g, S z_r) {
    const S p = z_r < 0 ? z_r : S(0);
    a = exp_to<kDigits>(z_g < 0 ? z_g : -z_g);
    b = exp_to<kDigits>(z_r < 0 ? z_r : -z_r);
    const S c = exp_to<kDigits>(z_g < p ? z_g - p : p - z_g);
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
template <Digits kDigits = Digits::All>
struct LogRefinedGate {
  template <class S>
  __device__ S operator()(S z_g, S z_r) const {
    const GateParts<S, kDigits> gate(z_g, z_r);
    const S a = gate.a, d = (1 + a) * (1 + a) * (1 + gate.b);
    const bool near_zero = z_g < 0;
    const S missing =
        near_zero ? d - (gate.square + gate.rest) : a * (a * (1 + gate.b) + 2 * gate.not_r);
    return (near_zero ? z_g + gate.larger : S(0)) + precise_log_without<kDigits>(missing, d);
  }
};

}  // namespace regla::cuda
