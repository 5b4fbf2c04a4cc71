#include "backends/cuda/kernels.h"
#include "backends/cuda/map.cuh"
#include "backends/cuda/totals.cuh"

namespace regla::cuda {
namespace {

template <class S>
struct SquaredDifference {
  Elements<S> x, y;
  __device__ double operator()(int64_t i) const {
    const double d = static_cast<double>(x[i]) - static_cast<double>(y[i]);
    return d * d;
  }
};

template <class S>
struct SquaredElement {
  Elements<S> y;
  __device__ double operator()(int64_t i) const {
    const double value = y[i];
    return value * value;
  }
};

template <class S>
struct ErrorGradient {
  Numbers error, d_error;
  __device__ S operator()(S x, S y) const {
    return static_cast<S>(2 * d_error.get(0) / error.get(1)) * (x - y);
  }
};

}  // namespace

// Bytes: x once and y twice.
void relative_error(const Tensor& x, const Tensor& y, Tensor error) {
  const Context& on = context(error);
  for_sum_type(x.dtype(), "relative_error", [&](auto tag) {
    using S = decltype(tag);
    const Elements<S> of_x(x), of_y(y);
    sum_all(on, x.numel(), SquaredDifference<S>{of_x, of_y}, 1, Numbers(error.slice(0, 1)));
    sum_all(on, y.numel(), SquaredElement<S>{of_y}, 1, Numbers(error.slice(1, 2)));
  });
  double* const at = error.data<double>();
  for_each(on, 1, [=] __device__(int64_t) {
    if (at[1] == 0) at[1] = 1;
    at[0] /= at[1];
  });
}

void relative_error_backward(const Tensor& x, const Tensor& y, const Tensor& error,
                             const Tensor& d_error, Sink d_x) {
  for_sum_type(x.dtype(), "relative_error_backward", [&](auto tag) {
    using S = decltype(tag);
    map<S>(ErrorGradient<S>{Numbers(error), Numbers(d_error)}, d_x, x, y);
  });
}

}  // namespace regla::cuda
