#include "scoring/lengths.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "text/batches.h"

namespace regla {
namespace {

void check_options(const LengthOptions& options, int64_t tokens) {
  check(options.segment > 0 && options.batch > 0 && options.stride >= 0,
        "[eval] expected a length and a batch of at least 1 and a stride of at least 0, got ",
        options.segment, ", ", options.batch, " and ", options.stride);
  check(!options.lengths.empty(), "[eval] expected lengths, got none");
  int64_t before = 0;
  for (const int64_t length : options.lengths) {
    check(length > before, "[eval] expected lengths that rise, got ", length, " behind ", before);
    before = length;
  }
  check(before <= tokens, "[eval] expected a text of at least ", before,
        " tokens, which is the last length, got ", tokens);
}

std::vector<LengthBucket> buckets_of(const std::vector<int64_t>& lengths) {
  std::vector<LengthBucket> buckets;
  for (const int64_t end : lengths) {
    buckets.push_back({.begin = buckets.empty() ? 0 : buckets.back().end, .end = end});
  }
  return buckets;
}

/// The text of sequences that move on together.
class Sequences {
 public:
  Sequences(std::span<const int32_t> ids, int32_t end_of_text, std::span<const int64_t> begins)
      : ids_(ids), end_of_text_(end_of_text), begins_(begins) {}

  /// Tokens [from, to) of each, and what each is predicted from.
  std::vector<int32_t> targets(int64_t from, int64_t to) const {
    std::vector<int32_t> targets;
    for (const int64_t begin : begins_) {
      targets.insert(targets.end(), ids_.begin() + begin + from, ids_.begin() + begin + to);
    }
    return targets;
  }
  std::vector<int32_t> inputs(int64_t from, int64_t to) const {
    std::vector<int32_t> inputs;
    for (const int64_t begin : begins_) {
      for (int64_t t = begin + from; t < begin + to; ++t) {
        inputs.push_back(t == 0 ? end_of_text_ : ids_[static_cast<size_t>(t - 1)]);
      }
    }
    return inputs;
  }

 private:
  std::span<const int32_t> ids_;
  int32_t end_of_text_;
  std::span<const int64_t> begins_;
};

/// Adds -ln p [B, to - from] of tokens [from, to) to their buckets.
void add(const std::vector<double>& losses, int64_t from, int64_t to,
         std::vector<LengthBucket>& buckets) {
  const int64_t T = to - from;
  const int64_t B = static_cast<int64_t>(losses.size()) / T;
  for (LengthBucket& bucket : buckets) {
    const int64_t first = std::max(from, bucket.begin), last = std::min(to, bucket.end);
    for (int64_t b = 0; b < B && first < last; ++b) {
      for (int64_t t = first; t < last; ++t) {
        bucket.nats += losses[static_cast<size_t>(b * T + t - from)];
      }
      bucket.tokens += last - first;
    }
  }
}

}  // namespace

double LengthBucket::loss() const { return nats / static_cast<double>(tokens); }
double LengthBucket::perplexity() const { return std::exp(loss()); }

LengthEvaluation evaluate_lengths(Decoder& decoder, const TokenStream& text, int32_t end_of_text,
                                  const LengthOptions& options,
                                  const std::function<void(int64_t, int64_t)>& progress) {
  const auto count = static_cast<int64_t>(text.ids().size());
  check_options(options, count);
  const NoGrad guard;
  const int64_t length = options.lengths.back();
  const int64_t stride = options.stride > 0 ? options.stride : length;
  std::vector<int64_t> begins;
  for (int64_t begin = 0; begin + length <= count; begin += stride) begins.push_back(begin);
  LengthEvaluation result = {.sequences = static_cast<int64_t>(begins.size()),
                             .buckets = buckets_of(options.lengths)};
  int64_t done = 0;
  for (int64_t row = 0; row < result.sequences; row += options.batch) {
    const int64_t B = std::min(options.batch, result.sequences - row);
    const Sequences sequences(
        text.ids(), end_of_text,
        std::span(begins).subspan(static_cast<size_t>(row), static_cast<size_t>(B)));
    DecoderState state = decoder.initial_state(B);
    for (int64_t from = 0; from < length; from += options.segment) {
      const int64_t to = std::min(length, from + options.segment);
      const Shape shape = {B, to - from};
      const std::vector<int32_t> inputs = sequences.inputs(from, to);
      Segment segment;
      if (options.reset_at_documents) {
        segment.reset = Tensor::of(shape, document_resets(inputs, end_of_text), decoder.device());
      }
      const Var hidden = decoder.hidden(decoder.ids(shape, inputs), segment, &state);
      const Tensor targets = decoder.ids(shape, sequences.targets(from, to));
      add(decoder.losses(hidden, targets).values(), from, to, result.buckets);
      done += B * (to - from);
      if (progress) progress(done, result.sequences * length);
    }
    const auto is_finite = [](const LengthBucket& one) { return std::isfinite(one.nats); };
    if (!std::all_of(result.buckets.begin(), result.buckets.end(), is_finite)) break;
  }
  return result;
}

}  // namespace regla
