#include "backends/cuda/kernels.h"
#include "backends/cuda/loops.cuh"

namespace regla::cuda {
namespace {

template <class From, class To>
void convert_elements(const Tensor& x, const Tensor& y) {
  Tensor to = y;
  const From* in = x.data<From>();
  To* out = to.data<To>();
  for_each(context(y), y.numel(), [=] __device__(int64_t i) { out[i] = static_cast<To>(in[i]); });
}

}  // namespace

void convert(const Tensor& x, Tensor y) {
  for_any_type(x.dtype(), [&](auto from) {
    for_any_type(y.dtype(), [&](auto to) { convert_elements<decltype(from), decltype(to)>(x, y); });
  });
}

}  // namespace regla::cuda
