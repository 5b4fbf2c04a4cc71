#include "models/generation.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/random.h"
#include "models/finite.h"

namespace regla {
namespace {

constexpr uint64_t kSamplingStream = 0x73616d706c65;  // apart from the streams of dropout

/// The ids that may be drawn, most probable first.
std::vector<int32_t> candidates(std::span<const double> scores, int64_t top_k) {
  std::vector<int32_t> ids(scores.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto before = [&](int32_t a, int32_t b) {
    const double x = scores[static_cast<size_t>(a)], y = scores[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  if (top_k > 0 && top_k < static_cast<int64_t>(ids.size())) {
    std::nth_element(ids.begin(), ids.begin() + top_k, ids.end(), before);
    ids.resize(static_cast<size_t>(top_k));
  }
  std::sort(ids.begin(), ids.end(), before);
  return ids;
}

/// The first of the weights at which their running sum exceeds `target`.
size_t index_at(const std::vector<double>& weights, double target) {
  double sum = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    sum += weights[i];
    if (sum > target) return i;
  }
  return weights.size() - 1;
}

/// Row `row` of scores [R, vocab], as far as `vocab` ids go.
std::vector<double> scores_of(const Tensor& logits, int64_t row, int32_t vocab) {
  std::vector<double> scores = logits.slice(row, row + 1).values();
  if (vocab > 0) scores.resize(std::min(scores.size(), static_cast<size_t>(vocab)));
  return scores;
}

/// Scores [B, T, vocab], every sequence from an empty state, token by token.
Tensor stepped_logits(Decoder& decoder, const Tensor& ids) {
  const int64_t B = ids.dim(0), steps = ids.dim(1), vocab = decoder.config().vocab;
  Tensor out = Tensor::empty({B, steps, vocab}, sum_type(decoder.dtype()));
  Tensor rows = out.reshape({B * steps, vocab});
  DecoderState state = decoder.initial_state(B);
  const int32_t* id = ids.data<int32_t>();
  for (int64_t t = 0; t < steps; ++t) {
    std::vector<int32_t> column;
    for (int64_t b = 0; b < B; ++b) column.push_back(id[b * steps + t]);
    const Tensor scores = decoder.step(Tensor::of({B}, column), state);
    for (int64_t b = 0; b < B; ++b) {
      rows.slice(b * steps + t, b * steps + t + 1).copy_from(scores.slice(b, b + 1));
    }
  }
  return out;
}

/// The same, where each reset [B, T] begins a sequence of its own.
Tensor stepped_logits(Decoder& decoder, const Tensor& ids, const Tensor& reset) {
  const int64_t steps = ids.dim(1), count = ids.numel(), vocab = decoder.config().vocab;
  const Tensor row_of_ids = ids.reshape({count});
  const int32_t* resets = reset.data<int32_t>();
  Tensor rows = Tensor::empty({count, vocab}, sum_type(decoder.dtype()));
  for (int64_t begin = 0, end = 0; begin < count; begin = end) {
    for (end = begin + 1; end % steps != 0 && resets[end] == 0;) ++end;
    const Tensor sequence = row_of_ids.slice(begin, end).reshape({1, end - begin});
    const Tensor scores = stepped_logits(decoder, sequence);
    rows.slice(begin, end).copy_from(scores.reshape({end - begin, vocab}));
  }
  return rows.reshape({ids.dim(0), steps, vocab});
}

}  // namespace

void SamplingOptions::validate() const {
  check(std::isfinite(temperature) && temperature >= 0,
        "[generate] expected a temperature of at least 0, got ", temperature);
  check(top_k >= 0, "[generate] expected top_k of at least 0, got ", top_k);
  check(top_p > 0 && top_p <= 1, "[generate] expected top_p in (0, 1], got ", top_p);
}

int32_t sample(std::span<const double> scores, const SamplingOptions& options, uint64_t index) {
  check(!scores.empty() && std::all_of(scores.begin(), scores.end(),
                                       [](double score) { return std::isfinite(score); }),
        "[generate] the model's scores are not finite");
  if (options.temperature == 0) {
    return static_cast<int32_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
  }
  const std::vector<int32_t> ids = candidates(scores, options.top_k);
  const double highest = scores[static_cast<size_t>(ids.front())];
  std::vector<double> weights;
  for (const int32_t id : ids) {
    weights.push_back(std::exp((scores[static_cast<size_t>(id)] - highest) / options.temperature));
  }
  if (options.top_p < 1) {
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    weights.resize(index_at(weights, options.top_p * total) + 1);
  }
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  const double draw = Random(options.seed, kSamplingStream).uniform(index);
  return ids[index_at(weights, draw * total)];
}

std::vector<int32_t> generate(Decoder& decoder, std::span<const int32_t> prompt,
                              const GenerationOptions& options,
                              const std::function<bool(int32_t)>& on_token) {
  options.sampling.validate();
  check(options.max_new_tokens >= 0, "[generate] expected at least 0 new tokens, got ",
        options.max_new_tokens);
  check(!prompt.empty(), "[generate] expected a prompt of at least one token");
  decoder.config().require_step_form();
  std::vector<int32_t> out;
  if (options.max_new_tokens == 0) return out;
  const auto length = static_cast<int64_t>(prompt.size());
  const NoGrad guard;
  DecoderState state = decoder.initial_state(1);
  const Tensor ids = Tensor::of({1, length}, std::vector<int32_t>(prompt.begin(), prompt.end()));
  const Var hidden = decoder.hidden(ids, {}, &state);
  const Tensor rows = hidden.value.reshape({length, decoder.config().hidden});
  Tensor logits = decoder.logits(rows.slice(length - 1, length)).value;
  while (true) {
    check_finite(decoder, logits, "[generate] the model's scores are");
    const int32_t token = sample(scores_of(logits, 0, options.vocab), options.sampling, out.size());
    if (token == options.stop) break;
    out.push_back(token);
    if (on_token && !on_token(token)) break;
    if (static_cast<int64_t>(out.size()) == options.max_new_tokens) break;
    logits = decoder.step(Tensor::of({1}, std::vector<int32_t>{token}), state);
  }
  return out;
}

namespace {

Tensor unchecked_logits(Decoder& decoder, const Tensor& ids, Form form, Segment segment) {
  if (form == Form::Step && segment.reset) return stepped_logits(decoder, ids, segment.reset);
  if (form == Form::Step) return stepped_logits(decoder, ids);
  if (form == Form::Recurrent) segment.chunk = 1;
  return decoder.logits(decoder.hidden(ids, segment)).value;
}

}  // namespace

Tensor all_logits(Decoder& decoder, const Tensor& ids, Form form, Segment segment) {
  const NoGrad guard;
  const Tensor scores = unchecked_logits(decoder, ids, form, std::move(segment));
  check_finite(decoder, scores, "[logits] the model's scores are");
  return scores;
}

}  // namespace regla
