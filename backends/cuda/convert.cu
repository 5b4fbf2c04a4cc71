#include "backends/cuda/kernels.h"
#include "backends/cuda/map.cuh"

namespace regla::cuda {
namespace {

template <class From, class To>
void convert_elements(const Tensor& x, const Tensor& y) {
  Tensor to = y;
  const From* in = x.data<From>();
  To* out = to.data<To>();
  for_each(context(y), y.numel(), [=] __device__(int64_t i) { out[i] = static_cast<To>(in[i]); });
}

struct Same {
  __device__ float operator()(float x) const { return x; }
};

/// Whether kernels that compute in float read and write it themselves.
bool is_float(const Tensor& x) { return x.dtype() == DType::F32 || x.dtype() == DType::BF16; }

}  // namespace

void convert(const Tensor& x, Tensor y) {
  if (is_float(x) && is_float(y)) return map<float>(Same{}, Sink{y}, x);
  for_any_type(x.dtype(), [&](auto from) {
    for_any_type(y.dtype(), [&](auto to) { convert_elements<decltype(from), decltype(to)>(x, y); });
  });
}

}  // namespace regla::cuda
