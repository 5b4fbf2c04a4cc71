#include "backends/copies.h"
#include "backends/cuda/kernels.h"
#include "backends/cuda/product.h"

namespace regla::cuda {

void matmul(const MatmulArgs& args, Sink out) {
  // A weight that is stored narrower than the activations is widened first.
  const DType dtype = args.a.dtype() == args.b.dtype() ? args.a.dtype() : DType::F32;
  const Tensor a = converted(args.a, dtype), b = converted(args.b, dtype);
  check(!args.bias || args.bias.dtype() == out.tensor.dtype(),
        "[matmul] expected a bias of the type of the result, got ", name_of(args.bias.dtype()));
  multiply(context(out.tensor), {.a = Matrices::of(a),
                                 .b = Matrices::of(b),
                                 .c = Matrices::of(out.tensor),
                                 .transpose_a = args.transpose_a,
                                 .transpose_b = args.transpose_b,
                                 .accumulate = out.accumulate,
                                 .bias = args.bias ? args.bias.raw() : nullptr});
}

}  // namespace regla::cuda
