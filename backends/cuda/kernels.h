#pragma once

#include "backends/kernels.h"

// A GPU's kernels. Each declaration takes its signature from the table, where it is documented.
namespace regla::cuda {

extern const KernelTable kTable;

decltype(KernelTable::convert)::Function convert;
decltype(KernelTable::copy_rows)::Function copy_rows;
decltype(KernelTable::accumulate)::Function accumulate;
decltype(KernelTable::add)::Function add;
decltype(KernelTable::scale_by)::Function scale_by;
decltype(KernelTable::matmul)::Function matmul;
decltype(KernelTable::gelu)::Function gelu;
decltype(KernelTable::gelu_backward)::Function gelu_backward;
decltype(KernelTable::clip_factor)::Function clip_factor;
decltype(KernelTable::adamw)::Function adamw;
decltype(KernelTable::commit)::Function commit;
decltype(KernelTable::restart)::Function restart;

}  // namespace regla::cuda
