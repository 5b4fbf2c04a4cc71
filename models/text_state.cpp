#include "models/text_state.h"

#include <utility>

namespace regla {

void read_on(Decoder& decoder, TextState& text, std::span<const int32_t> ids) {
  check(!ids.empty(), "[generate] expected a prompt of at least one token");
  decoder.config().require_step_form();
  const NoGrad guard;
  if (text.empty()) text.state = decoder.initial_state(1);
  text.seen.resize(1);
  const auto length = static_cast<int64_t>(ids.size());
  const Tensor segment = decoder.ids({1, length}, {ids.begin(), ids.end()});
  const Var hidden = decoder.hidden(segment, {}, &text.state);
  const Tensor rows = hidden.value.reshape({length, decoder.config().hidden});
  text.scores = decoder.logits(rows.slice(length - 1, length)).value;
  text.seen[0].insert(ids.begin(), ids.end());
  text.last = {ids.back()};
}

TextState read_prompts(Decoder& decoder, std::span<const std::vector<int32_t>> prompts) {
  check(!prompts.empty(), "[generate] expected a prompt");
  if (prompts.size() == 1) {
    TextState text;
    read_on(decoder, text, prompts[0]);
    return text;
  }
  const auto B = static_cast<int64_t>(prompts.size());
  TextState all;
  std::vector<DecoderState> states;
  all.scores =
      Tensor::empty({B, decoder.config().vocab}, sum_type(decoder.dtype()), decoder.device());
  for (int64_t b = 0; b < B; ++b) {
    TextState one;
    read_on(decoder, one, prompts[static_cast<size_t>(b)]);
    all.scores.slice(b, b + 1).copy_from(one.scores);
    states.push_back(std::move(one.state));
    all.seen.push_back(std::move(one.seen[0]));
    all.last.push_back(one.last[0]);
  }
  all.state = DecoderState::joined(std::move(states));
  return all;
}

}  // namespace regla
