#include "backends/cuda/context.h"
#include "backends/cuda/kernels.h"
#include "backends/cuda/loops.cuh"

namespace regla::cuda {

void copy_rows(const CopyRowsArgs& args) {
  Tensor to = args.to;
  const size_t row = size_of(to.dtype()) * static_cast<size_t>(to.dim(2));
  const size_t from_pitch = row * static_cast<size_t>(args.from.dim(1));
  const size_t to_pitch = row * static_cast<size_t>(to.dim(1));
  const auto* source = static_cast<const char*>(args.from.raw()) + row * args.begin;
  auto* target = static_cast<char*>(to.raw()) + row * args.at;
  require(
      cudaMemcpy2DAsync(target, to_pitch, source, from_pitch, row * static_cast<size_t>(args.count),
                        args.from.dim(0), cudaMemcpyDeviceToDevice, context(to).stream),
      "copy rows");
}

void put_row(const Tensor& row, const Tensor& from, Tensor to) {
  const int32_t* number = row.data<int32_t>();
  const auto* in = static_cast<const char*>(from.raw());
  auto* rows = static_cast<char*>(to.raw());
  const int64_t bytes = from.bytes();
  for_each(context(to), bytes, [=] __device__(int64_t i) { rows[number[0] * bytes + i] = in[i]; });
}

}  // namespace regla::cuda
