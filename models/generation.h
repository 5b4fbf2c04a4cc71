#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "models/decoder.h"

namespace regla {

/// How the next token is drawn from the scores.
struct SamplingOptions {
  double temperature = 1;  ///< divides the scores; 0: always the token with the highest score
  int64_t top_k = 0;       ///< only the so many most probable tokens; 0: all
  double top_p = 1;        ///< of those, the most probable that together reach this probability
  uint64_t seed = 0;

  /// An Error naming the option unless every value makes sense.
  void validate() const;
};

/// One draw from scores over the vocabulary. Draw `index` of a seed is always the same, whatever
/// was drawn before. Among equal scores the lower id comes first.
int32_t sample(std::span<const double> scores, const SamplingOptions& options, uint64_t index);

struct GenerationOptions {
  SamplingOptions sampling;
  int64_t max_new_tokens = 100;
  int32_t vocab = 0;  ///< ids from here on are padding and never drawn; 0: the whole vocabulary
  int32_t stop = -1;  ///< the token that ends the text, which is not returned; -1: none
};

/// Continues `prompt` (at least one id): the prompt in one chunked pass, then token by token.
/// Returns the new ids; `on_token`, when given, sees each at once and ends generation by returning
/// false. Errors: a mixer without a step form, and a score that is not finite, be it of padding.
std::vector<int32_t> generate(Decoder& decoder, std::span<const int32_t> prompt,
                              const GenerationOptions& options,
                              const std::function<bool(int32_t)>& on_token = {});

/// How logits are computed: three forms of one function (docs/math.md, "Three forms").
enum class Form : uint8_t { Chunked, Recurrent, Step };
constexpr std::array<std::string_view, 3> names_of(Form) {
  return {"chunked", "recurrent", "step"};
}

/// Scores [B, T, vocab], on the decoder's device, for ids [B, T] on the CPU, with the resets of
/// `segment`, which are there too. Its chunk is that of the form
/// chunked; recurrent is chunks of 1. A score that is not finite is an Error.
Tensor all_logits(Decoder& decoder, const Tensor& ids, Form form = Form::Chunked,
                  Segment segment = {});

}  // namespace regla
