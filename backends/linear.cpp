#include "backends/linear.h"

#include "backends/copies.h"

namespace regla {

void linear_backward_by_parts(const LinearGradients& args, const Sink& d_x) {
  const Tensor& x = args.x;
  const KernelTable& kernel = kernels(x.device());
  Sink sum = d_x;
  const bool is_narrow = d_x && d_x.tensor.dtype() != sum_type(x.dtype());
  if (is_narrow && args.parts.size() > 1) {  // rounded when it is complete
    sum = {Tensor::empty(x.shape(), sum_type(x.dtype()), x.device())};
  }
  for (const LinearGradients::Part& part : args.parts) {
    // Operands of products are narrow, as they were in forward.
    const Tensor d_y = converted(part.d_y, x.dtype());
    if (sum) {  // d_x = d_y W
      kernel.matmul({.a = d_y, .b = part.weight, .bias = {}}, sum);
      sum.accumulate = true;
    }
    if (part.d_weight) {  // d_W = d_y^T x
      kernel.matmul({.a = d_y, .b = x, .bias = {}, .transpose_a = true}, part.d_weight);
    }
    if (part.d_bias) kernel.column_sums(d_y, part.d_bias);  // d_b = sum over rows of d_y
  }
  if (d_x && !sum.tensor.shares_memory_with(d_x.tensor)) kernel.accumulate(sum.tensor, 1, d_x);
}

}  // namespace regla
