#include "text/batches.h"

#include "core/check.h"

namespace regla {

std::vector<int32_t> document_resets(std::span<const int32_t> ids, int32_t end_of_text) {
  std::vector<int32_t> resets;
  resets.reserve(ids.size());
  for (const int32_t id : ids) resets.push_back(id == end_of_text ? 1 : 0);
  return resets;
}

Batches::Batches(std::span<const int32_t> ids, int64_t batch, int64_t length, int32_t end_of_text)
    : ids_(ids), batch_(batch), length_(length), end_of_text_(end_of_text) {
  check(batch > 0 && length > 0, "[batches] expected a batch and a sequence of at least 1, got ",
        batch, " and ", length);
  const auto count = static_cast<int64_t>(ids.size());
  // Divided one after the other, so that B T cannot overflow; the floor is the same.
  segments_ = count < 1 ? 0 : (count - 1) / batch / length;
  check(segments_ > 0, "[batches] expected more than batch ", batch, " x sequence ", length,
        " tokens, got ", count);
}

Batch Batches::at(int64_t step) const {
  check(step >= 0, "[batches] expected a step of at least 0, got ", step);
  const int64_t segment = step % segments_;
  Batch out;
  out.batch = batch_;
  out.length = length_;
  out.first = segment == 0;
  const auto size = static_cast<size_t>(batch_ * length_);
  out.inputs.reserve(size);
  out.targets.reserve(size);
  for (int64_t b = 0; b < batch_; ++b) {
    const auto* input = ids_.data() + (b * segments_ + segment) * length_;
    out.inputs.insert(out.inputs.end(), input, input + length_);
    out.targets.insert(out.targets.end(), input + 1, input + length_ + 1);
  }
  out.reset = document_resets(out.inputs, end_of_text_);
  return out;
}

}  // namespace regla
