#include "backends/copies.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/product.h"

namespace regla::cpu {

namespace {

template <class T, class W, class Out>
void multiply_tensors(const MatmulArgs& args, Sink& out) {
  const int64_t M = args.a.dim(args.transpose_a ? 1 : 0), K = args.a.dim(args.transpose_a ? 0 : 1);
  const int64_t N = args.b.dim(args.transpose_b ? 0 : 1);
  const Tensor bias = converted(args.bias, sum_type(out.tensor.dtype()));
  multiply(Product<T, W, Out>{.M = M,
                              .N = N,
                              .K = K,
                              .transpose_a = args.transpose_a,
                              .transpose_b = args.transpose_b,
                              .a = args.a.data<T>(),
                              .a_pitch = args.transpose_a ? M : K,
                              .b = args.b.data<W>(),
                              .b_pitch = args.transpose_b ? K : N,
                              .bias = bias ? bias.data<SumOf<T>>() : nullptr,
                              .c = out.tensor.data<Out>(),
                              .c_pitch = N,
                              .accumulate = out.accumulate});
}

}  // namespace

void matmul(const MatmulArgs& args, Sink out) {
  if (args.a.dtype() == DType::BF16) {
    if (out.tensor.dtype() == DType::BF16) {
      return multiply_tensors<BFloat16, BFloat16, BFloat16>(args, out);
    }
    return multiply_tensors<BFloat16, BFloat16, float>(args, out);
  }
  for_product_types(args.a, args.b, "matmul", [&](auto tag, auto weight) {
    using T = decltype(tag);
    multiply_tensors<T, decltype(weight), T>(args, out);
  });
}

}  // namespace regla::cpu
