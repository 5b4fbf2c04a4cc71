#include "training/staged_update.h"

#include <algorithm>

namespace regla {
namespace {

/// Cuts tensors out of a block, one behind the other.
class Cutter {
 public:
  explicit Cutter(const Tensor& block) : block_(block) {}

  Tensor operator()(const Shape& shape, DType dtype) {
    Tensor piece = block_.part(next_, shape, dtype);
    next_ += piece.bytes();
    return piece;
  }

 private:
  const Tensor& block_;
  int64_t next_ = 0;
};

void put(const std::vector<int32_t>& values, Tensor to) {
  std::copy(values.begin(), values.end(), to.data<int32_t>());
}

}  // namespace

BatchTensors BatchTensors::rows(int64_t begin, int64_t end) const {
  return {ids.slice(begin, end), targets.slice(begin, end),
          reset ? reset.slice(begin, end) : Tensor{}};
}

StagedUpdate::StagedUpdate(int64_t batch, int64_t length, bool with_reset, Device device) {
  // The rates, which are 8 bytes each, come first.
  const int64_t bytes = 3 * 8 + 4 * 4 + (with_reset ? 3 : 2) * batch * length * 4;
  on_host_ = pieces_of(Tensor::zeros({(bytes + 7) / 8}, DType::F64), batch, length, with_reset);
  there_ =
      pieces_of(Tensor::zeros({(bytes + 7) / 8}, DType::F64, device), batch, length, with_reset);
}

StagedUpdate::Pieces StagedUpdate::pieces_of(const Tensor& block, int64_t batch, int64_t length,
                                             bool with_reset) {
  Cutter cut(block);
  const Shape tokens = {batch, length};
  Pieces pieces;
  pieces.block = block;
  pieces.rates = cut({3}, DType::F64);
  pieces.step = cut({1}, DType::I32);
  pieces.begins_epoch = cut({1}, DType::I32);
  pieces.report_row = cut({1}, DType::I32);
  pieces.tokens.ids = cut(tokens, DType::I32);
  pieces.tokens.targets = cut(tokens, DType::I32);
  if (with_reset) pieces.tokens.reset = cut(tokens, DType::I32);
  return pieces;
}

void StagedUpdate::write(const Batch& batch, const UpdateNumbers& numbers) {
  std::copy(numbers.rates.begin(), numbers.rates.end(), on_host_.rates.data<double>());
  put({static_cast<int32_t>(numbers.step)}, on_host_.step);
  put({batch.first ? 1 : 0}, on_host_.begins_epoch);
  put({static_cast<int32_t>(numbers.report_row)}, on_host_.report_row);
  put(batch.inputs, on_host_.tokens.ids);
  put(batch.targets, on_host_.tokens.targets);
  if (on_host_.tokens.reset) put(batch.reset, on_host_.tokens.reset);
  there_.block.copy_from(on_host_.block);
}

}  // namespace regla
