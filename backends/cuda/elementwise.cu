#include "backends/cuda/kernels.h"
#include "backends/cuda/loops.cuh"

// A device lambda may not stand inside a generic one, hence a function per kernel and type.
namespace regla::cuda {
namespace {

template <class T>
void accumulate_elements(const Tensor& x, double scale, const Sink& out) {
  const T* in = x.data<T>();
  const T factor = static_cast<T>(scale);
  write<T>(out, [=] __device__(int64_t i) { return factor * in[i]; });
}

template <class T>
void add_elements(const Tensor& a, const Tensor& b, const Tensor& out) {
  const T *left = a.data<T>(), *right = b.data<T>();
  write<T>({out}, [=] __device__(int64_t i) { return left[i] + right[i]; });
}

template <class T>
void scale_elements(const Tensor& x, const Tensor& factor, const Sink& out) {
  const T* in = x.data<T>();
  const double* by = factor.data<double>();
  write<T>(out, [=] __device__(int64_t i) { return static_cast<T>(by[0]) * in[i]; });
}

}  // namespace

void accumulate(const Tensor& x, double scale, Sink out) {
  for_float_type(x.dtype(), "accumulate",
                 [&](auto tag) { accumulate_elements<decltype(tag)>(x, scale, out); });
}

void add(const Tensor& a, const Tensor& b, Tensor out) {
  for_float_type(a.dtype(), "add", [&](auto tag) { add_elements<decltype(tag)>(a, b, out); });
}

void scale_by(const Tensor& x, const Tensor& factor, Sink out) {
  for_float_type(x.dtype(), "scale_by",
                 [&](auto tag) { scale_elements<decltype(tag)>(x, factor, out); });
}

}  // namespace regla::cuda
