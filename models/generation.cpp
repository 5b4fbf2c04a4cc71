#include "models/generation.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "backends/kernels.h"
#include "core/memory.h"
#include "models/finite.h"

namespace regla {
namespace {

/// Draws ids [B] from scores [B, vocab].
void draw(const Tensor& scores, const GenerationOptions& options, const Tensor& index,
          const Tensor& ids) {
  const SamplingOptions& sampling = options.sampling;
  kernels(scores.device())
      .sample({.scores = scores,
               .draw = index,
               .temperature = sampling.temperature,
               .top_k = sampling.top_k,
               .top_p = sampling.top_p,
               .min_p = sampling.min_p,
               .seed = sampling.seed,
               .vocab = options.vocab,
               .first_row = options.first_row},
              ids);
}

/// Flags [B, vocab] of the ids that sequences have seen.
Tensor flags_of(const std::vector<std::set<int32_t>>& seen, int64_t vocab, Device device) {
  const auto B = static_cast<int64_t>(seen.size());
  std::vector<int32_t> flags(static_cast<size_t>(B * vocab));
  for (int64_t b = 0; b < B; ++b) {
    for (const int32_t id : seen[static_cast<size_t>(b)]) {
      flags[static_cast<size_t>(b * vocab + id)] = 1;
    }
  }
  return Tensor::of({B, vocab}, flags, device);
}

/// Scores [B, T, vocab] of ids on the CPU, every sequence from an empty state, token by token.
Tensor stepped_logits(Decoder& decoder, const Tensor& ids) {
  const int64_t B = ids.dim(0), steps = ids.dim(1), vocab = decoder.config().vocab;
  Tensor out = Tensor::empty({B, steps, vocab}, sum_type(decoder.dtype()), decoder.device());
  Tensor rows = out.reshape({B * steps, vocab});
  DecoderState state = decoder.initial_state(B);
  decoder.reserve(state, steps);
  const int32_t* id = ids.data<int32_t>();
  for (int64_t t = 0; t < steps; ++t) {
    std::vector<int32_t> column;
    for (int64_t b = 0; b < B; ++b) column.push_back(id[b * steps + t]);
    const Tensor scores = decoder.step(decoder.ids({B}, column), state);
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
  Tensor rows = Tensor::empty({count, vocab}, sum_type(decoder.dtype()), decoder.device());
  for (int64_t begin = 0, end = 0; begin < count; begin = end) {
    for (end = begin + 1; end % steps != 0 && resets[end] == 0;) ++end;
    const Tensor sequence = row_of_ids.slice(begin, end).reshape({1, end - begin});
    const Tensor scores = stepped_logits(decoder, sequence);
    rows.slice(begin, end).copy_from(scores.reshape({end - begin, vocab}));
  }
  return rows.reshape({ids.dim(0), steps, vocab});
}

}  // namespace

Continuation::Continuation(Decoder& decoder, TextState text, const GenerationOptions& options)
    : decoder_(decoder),
      options_(options),
      text_(std::move(text)),
      ids_(Tensor::empty({text_.scores.dim(0)}, DType::I32, decoder.device())),
      latest_(Tensor::empty({kKept, text_.scores.dim(0)}, DType::I32, decoder.device())),
      draws_(Tensor::full({1}, static_cast<double>(text_.draws), DType::I32, decoder.device())) {
  if (options.sampling.repetition_penalty != 1) {
    seen_ = flags_of(text_.seen, text_.scores.dim(1), decoder.device());
  }
  draw_next({});
  keep_ids();
}

void Continuation::advance() {
  if (decoder_.steps_ahead(text_.state) == 0) {
    // All draws may be read, the last one where the text goes on.
    decoder_.reserve(text_.state, std::max<int64_t>(1, options_.max_new_tokens - asked_ + 1));
    routine_.reset();
  }
  if (!routine_) {
    routine_ = std::make_unique<Routine>(decoder_.device(), [this] {
      is_called_ = true;
      text_.scores = decoder_.step(ids_, text_.state);
      draw_next(ids_);
    });
  }
  is_called_ = false;
  routine_->run();
  if (!is_called_) text_.state.advance(1);
  keep_ids();
}

void Continuation::check_kept(int64_t draw) const {
  check(draw < asked_ && draw >= asked_ - kKept, "[generate] draw ", draw, " of ", asked_,
        " is not there");
}

bool Continuation::has(int64_t draw) const {
  check_kept(draw);
  return memory(decoder_.device()).has_passed(marks_[static_cast<size_t>(draw % kKept)]);
}

std::vector<int32_t> Continuation::ids(int64_t draw) const {
  check_kept(draw);
  const int64_t row = draw % kKept;
  const auto drawn = latest_.slice(row, row + 1).values_at(marks_[static_cast<size_t>(row)]);
  std::vector<int32_t> ids;
  for (const double id : drawn) {
    if (id < 0) fail_not_finite(decoder_, "[generate] the model's scores are");
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

TextState Continuation::text() const {
  TextState text = text_;
  text.scores = text_.scores.clone();  // the routine's own
  text.draws += asked_ - 1;
  return text;
}

/// `read`: the ids that scores are behind, undefined where they are known to be seen.
void Continuation::draw_next(const Tensor& read) {
  const KernelTable& on = kernels(decoder_.device());
  const Tensor index = Tensor::empty({1, 1}, DType::I32, decoder_.device());
  on.positions(draws_, {}, index, draws_);
  Tensor scores = text_.scores;
  if (seen_) {
    scores = Tensor::empty_like(scores);
    on.penalise({text_.scores, read, seen_, options_.sampling.repetition_penalty}, scores);
  }
  draw(scores, options_, index.reshape({1}), ids_);
}

void Continuation::keep_ids() {
  const int64_t row = asked_ % kKept;
  latest_.slice(row, row + 1).copy_from(ids_.reshape({1, ids_.numel()}));
  marks_[static_cast<size_t>(row)] = memory(decoder_.device()).set_mark();
  ++asked_;
}

void SamplingOptions::validate() const {
  check(std::isfinite(temperature) && temperature >= 0,
        "[generate] expected a temperature of at least 0, got ", temperature);
  check(top_k >= 0, "[generate] expected top_k of at least 0, got ", top_k);
  check(top_p > 0 && top_p <= 1, "[generate] expected top_p in (0, 1], got ", top_p);
  check(min_p >= 0 && min_p <= 1, "[generate] expected min_p in [0, 1], got ", min_p);
  check(std::isfinite(repetition_penalty) && repetition_penalty > 0,
        "[generate] expected a repetition_penalty above 0, got ", repetition_penalty);
}

int32_t sample(std::span<const double> scores, const SamplingOptions& options, uint64_t index) {
  const std::vector<double> row(scores.begin(), scores.end());
  Tensor id = Tensor::full({1}, -1, DType::I32);
  if (!row.empty()) {
    const Tensor number = Tensor::full({1}, static_cast<double>(index), DType::I32);
    draw(Tensor::of({1, static_cast<int64_t>(row.size())}, row), {.sampling = options}, number, id);
  }
  check(id.values()[0] >= 0, "[generate] the model's scores are not finite");
  return static_cast<int32_t>(id.values()[0]);
}

namespace {

void check_options(const GenerationOptions& options) {
  options.sampling.validate();
  check(options.max_new_tokens >= 0, "[generate] expected at least 0 new tokens, got ",
        options.max_new_tokens);
}

/// Takes draws until every sequence has ended. `goes_on`: nothing is read beyond what is returned.
std::vector<std::vector<int32_t>> write(Continuation& text, const GenerationOptions& options,
                                        const OnToken& on_token, bool goes_on) {
  std::vector<std::vector<int32_t>> out;
  std::vector<bool> has_ended;
  for (int64_t draw = 0; draw < options.max_new_tokens; ++draw) {
    // Where this token is not there yet, the next one is asked for before it is waited for.
    const bool is_last = draw + 1 == options.max_new_tokens;
    if (!is_last && !goes_on && !text.has(draw)) text.advance();
    const std::vector<int32_t> ids = text.ids(draw);
    out.resize(ids.size());
    has_ended.resize(ids.size());
    for (size_t b = 0; b < ids.size(); ++b) {
      if (has_ended[b]) continue;
      has_ended[b] = ids[b] == options.stop;
      if (has_ended[b]) continue;
      out[b].push_back(ids[b]);
      has_ended[b] = on_token && !on_token(static_cast<int64_t>(b), ids[b]);
    }
    if (std::find(has_ended.begin(), has_ended.end(), false) == has_ended.end()) break;
    if (!is_last && text.asked() == draw + 1) text.advance();
  }
  return out;
}

/// The same for a single sequence.
OnToken of_sequence(const std::function<bool(int32_t)>& on_token) {
  if (!on_token) return {};
  return [&on_token](int64_t, int32_t id) { return on_token(id); };
}

}  // namespace

std::vector<std::vector<int32_t>> continue_texts(Decoder& decoder, TextState& texts,
                                                 const GenerationOptions& options,
                                                 const OnToken& on_token) {
  check_options(options);
  const NoGrad guard;
  const auto B = static_cast<size_t>(texts.scores.dim(0));
  if (options.max_new_tokens == 0) return std::vector<std::vector<int32_t>>(B);
  Continuation continuation(decoder, std::exchange(texts, {}), options);
  std::vector<std::vector<int32_t>> ids = write(continuation, options, on_token, false);
  texts = continuation.text();
  return ids;
}

std::vector<int32_t> write_on(Decoder& decoder, TextState& text, const GenerationOptions& options,
                              const std::function<bool(int32_t)>& on_token) {
  check_options(options);
  check(text.scores.dim(0) == 1, "[generate] expected a single text, got ", text.scores.dim(0));
  const NoGrad guard;
  if (options.max_new_tokens == 0) return {};
  std::set<int32_t> seen = text.seen[0];
  Continuation continuation(decoder, std::exchange(text, {}), options);
  std::vector<int32_t> ids = write(continuation, options, of_sequence(on_token), true)[0];
  // The last draw was kept, unless it is what ended the text.
  if (continuation.asked() == static_cast<int64_t>(ids.size())) continuation.advance();
  text = continuation.text();
  seen.insert(ids.begin(), ids.end());
  text.seen = {std::move(seen)};
  if (!ids.empty()) text.last = {ids.back()};
  return ids;
}

std::vector<int32_t> generate(Decoder& decoder, std::span<const int32_t> prompt,
                              const GenerationOptions& options,
                              const std::function<bool(int32_t)>& on_token) {
  check_options(options);
  check(!prompt.empty(), "[generate] expected a prompt of at least one token");
  decoder.config().require_step_form();
  if (options.max_new_tokens == 0) return {};
  TextState text;
  read_on(decoder, text, prompt);
  return continue_texts(decoder, text, options, of_sequence(on_token))[0];
}

namespace {

Tensor unchecked_logits(Decoder& decoder, const Tensor& ids, Form form, Segment segment) {
  if (form == Form::Step && segment.reset) return stepped_logits(decoder, ids, segment.reset);
  if (form == Form::Step) return stepped_logits(decoder, ids);
  if (form == Form::Recurrent) segment.chunk = 1;
  segment.reset = segment.reset.on(decoder.device());
  const int32_t* id = ids.data<int32_t>();
  return decoder.logits(decoder.hidden(decoder.ids(ids.shape(), {id, id + ids.numel()}), segment))
      .value;
}

}  // namespace

Tensor all_logits(Decoder& decoder, const Tensor& ids, Form form, Segment segment) {
  const NoGrad guard;
  const Tensor scores = unchecked_logits(decoder, ids, form, std::move(segment));
  check_finite(decoder, scores, "[logits] the model's scores are");
  return scores;
}

}  // namespace regla
