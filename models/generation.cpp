#include "models/generation.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "backends/kernels.h"
#include "core/memory.h"
#include "models/finite.h"

namespace regla {
namespace {

/// Draws ids [B] from scores [B, vocab], of those below `vocab` (0: of all).
void draw(const Tensor& scores, const SamplingOptions& options, const Tensor& index, int32_t vocab,
          const Tensor& ids) {
  kernels(scores.device())
      .sample({.scores = scores,
               .draw = index,
               .temperature = options.temperature,
               .top_k = options.top_k,
               .top_p = options.top_p,
               .seed = options.seed,
               .vocab = vocab},
              ids);
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

Continuation::Continuation(Decoder& decoder, DecoderState state, Tensor scores,
                           const GenerationOptions& options)
    : decoder_(decoder),
      options_(options),
      state_(std::move(state)),
      scores_(std::move(scores)),
      ids_(Tensor::empty({scores_.dim(0)}, DType::I32, decoder.device())),
      latest_(Tensor::empty({kKept, scores_.dim(0)}, DType::I32, decoder.device())),
      draws_(Tensor::zeros({1}, DType::I32, decoder.device())) {
  draw_next();
  keep_ids();
}

void Continuation::advance() {
  if (decoder_.steps_ahead(state_) == 0) {
    decoder_.reserve(state_, std::max<int64_t>(1, options_.max_new_tokens - asked()));
    routine_.reset();
  }
  if (!routine_) {
    routine_ = std::make_unique<Routine>(decoder_.device(), [this] {
      is_called_ = true;
      scores_ = decoder_.step(ids_, state_);
      draw_next();
    });
  }
  is_called_ = false;
  routine_->run();
  if (!is_called_) state_.advance(1);
  keep_ids();
}

bool Continuation::has(int64_t draw) const {
  return memory(decoder_.device()).has_passed(marks_.at(static_cast<size_t>(draw)));
}

std::vector<int32_t> Continuation::ids(int64_t draw) const {
  check(draw < asked() && draw >= asked() - kKept, "[generate] draw ", draw, " of ", asked(),
        " is not there");
  const int64_t row = draw % kKept;
  const auto drawn = latest_.slice(row, row + 1).values_at(marks_[static_cast<size_t>(draw)]);
  std::vector<int32_t> ids;
  for (const double id : drawn) {
    if (id < 0) fail_not_finite(decoder_, "[generate] the model's scores are");
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

void Continuation::draw_next() {
  const Tensor index = Tensor::empty({1, 1}, DType::I32, decoder_.device());
  kernels(decoder_.device()).positions(draws_, {}, index, draws_);
  draw(scores_, options_.sampling, index.reshape({1}), options_.vocab, ids_);
}

void Continuation::keep_ids() {
  const int64_t row = asked() % kKept;
  latest_.slice(row, row + 1).copy_from(ids_.reshape({1, ids_.numel()}));
  marks_.push_back(memory(decoder_.device()).set_mark());
}

void SamplingOptions::validate() const {
  check(std::isfinite(temperature) && temperature >= 0,
        "[generate] expected a temperature of at least 0, got ", temperature);
  check(top_k >= 0, "[generate] expected top_k of at least 0, got ", top_k);
  check(top_p > 0 && top_p <= 1, "[generate] expected top_p in (0, 1], got ", top_p);
}

int32_t sample(std::span<const double> scores, const SamplingOptions& options, uint64_t index) {
  const std::vector<double> row(scores.begin(), scores.end());
  Tensor id = Tensor::full({1}, -1, DType::I32);
  if (!row.empty()) {
    const Tensor number = Tensor::full({1}, static_cast<double>(index), DType::I32);
    draw(Tensor::of({1, static_cast<int64_t>(row.size())}, row), options, number, 0, id);
  }
  check(id.values()[0] >= 0, "[generate] the model's scores are not finite");
  return static_cast<int32_t>(id.values()[0]);
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
  const Tensor ids = decoder.ids({1, length}, {prompt.begin(), prompt.end()});
  const Var hidden = decoder.hidden(ids, {}, &state);
  const Tensor rows = hidden.value.reshape({length, decoder.config().hidden});
  Continuation text(decoder, std::move(state), decoder.logits(rows.slice(length - 1, length)).value,
                    options);
  for (int64_t draw = 0; draw < options.max_new_tokens; ++draw) {
    // Where this token is not there yet, the next one is asked for before it is waited for.
    const bool is_last = draw + 1 == options.max_new_tokens;
    if (!is_last && !text.has(draw)) text.advance();
    const int32_t token = text.ids(draw)[0];
    if (token == options.stop) break;
    out.push_back(token);
    if (on_token && !on_token(token)) break;
    if (!is_last && text.asked() == draw + 1) text.advance();
  }
  return out;
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
