#include "backends/cuda/kernels.h"

namespace regla::cuda {
namespace {

constexpr KernelTable make_table() {
  KernelTable table;  // what is not named here is an Error when it is called
  table.backend = "cuda";
  table.convert = convert;
  table.copy_rows = copy_rows;
  table.accumulate = accumulate;
  table.add = add;
  table.scale_by = scale_by;
  table.matmul = matmul;
  table.gelu = gelu;
  table.gelu_backward = gelu_backward;
  table.clip_factor = clip_factor;
  table.adamw = adamw;
  table.commit = commit;
  table.restart = restart;
  return table;
}

}  // namespace

const KernelTable kTable = make_table();

}  // namespace regla::cuda
