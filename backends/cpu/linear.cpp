#include "backends/linear.h"

#include "backends/cpu/kernels.h"

namespace regla::cpu {

void linear_backward(const LinearGradients& args, Sink d_x) { linear_backward_by_parts(args, d_x); }

}  // namespace regla::cpu
