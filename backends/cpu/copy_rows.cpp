#include <cstring>

#include "backends/cpu/kernels.h"
#include "core/parallel.h"

namespace regla::cpu {

void copy_rows(const CopyRowsArgs& args) {
  const Tensor& from = args.from;
  Tensor to = args.to;
  const auto row = static_cast<int64_t>(size_of(from.dtype())) * from.dim(2);
  const auto* source = static_cast<const char*>(from.raw()) + args.begin * row;
  auto* target = static_cast<char*>(to.raw()) + args.at * row;
  const int64_t source_pitch = from.dim(1) * row, target_pitch = to.dim(1) * row;
  parallel_for(from.dim(0), 1, [=, bytes = args.count * row](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      std::memcpy(target + b * target_pitch, source + b * source_pitch, static_cast<size_t>(bytes));
    }
  });
}

void put_row(const Tensor& row, const Tensor& from, Tensor to) {
  const auto bytes = static_cast<size_t>(from.bytes());
  auto* rows = static_cast<char*>(to.raw());
  std::memcpy(rows + static_cast<size_t>(row.data<int32_t>()[0]) * bytes, from.raw(), bytes);
}

}  // namespace regla::cpu
