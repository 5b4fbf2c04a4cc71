#include "backends/cpu/kernels.h"
#include "backends/cpu/product.h"

namespace regla::cpu {

void matmul(const MatmulArgs& args, Sink out) {
  const int64_t M = args.a.dim(args.transpose_a ? 1 : 0), K = args.a.dim(args.transpose_a ? 0 : 1);
  const int64_t N = args.b.dim(args.transpose_b ? 0 : 1);
  for_product_types(args.a, args.b, "matmul", [&](auto tag, auto weight) {
    using T = decltype(tag);
    using W = decltype(weight);
    multiply(Product<T, W>{.M = M,
                           .N = N,
                           .K = K,
                           .transpose_a = args.transpose_a,
                           .transpose_b = args.transpose_b,
                           .a = args.a.data<T>(),
                           .a_pitch = args.transpose_a ? M : K,
                           .b = args.b.data<W>(),
                           .b_pitch = args.transpose_b ? K : N,
                           .bias = args.bias ? args.bias.data<T>() : nullptr,
                           .c = out.tensor.data<T>(),
                           .c_pitch = N,
                           .accumulate = out.accumulate});
  });
}

}  // namespace regla::cpu
