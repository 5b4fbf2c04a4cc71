#include "backends/step.h"

#include "backends/cpu/kernels.h"

namespace regla::cpu {

void linear_step(const LinearStepArgs& args) { linear_step_by_parts(args); }

void regla_step(const ReglaStepArgs& args, Tensor y) { regla_step_by_parts(args, y); }

}  // namespace regla::cpu
