#pragma once

// Elementary functions beyond those that CUDA has. NaN stays NaN.
namespace regla::cuda {

template <class S>
__device__ S sigmoid_of(S x) {
  // e^-|x| never overflows, and 1 - sigmoid(x) = sigmoid(-x) keeps its digits.
  const S e = exp(x < 0 ? x : -x);
  return (x < 0 ? e : S(1)) / (1 + e);
}

}  // namespace regla::cuda
