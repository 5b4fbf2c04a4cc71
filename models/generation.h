#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "backends/routine.h"
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

/// Texts that grow token by token, one for each sequence. What differs between two tokens lies in
/// tensors, so that the work for one is done again without asking the host, as long as the state
/// stays where it is; the host may ask for a token before it has read the one before.
class Continuation {
 public:
  /// Behind `state`, of whose next tokens `scores` [B, vocab] are. Draw 0, of those, is asked for.
  /// `decoder` and `options` must live as long.
  Continuation(Decoder& decoder, DecoderState state, Tensor scores,
               const GenerationOptions& options);

  /// Has every sequence read what was drawn last, and asks for another draw.
  void advance();
  /// How many draws were asked for.
  int64_t asked() const { return static_cast<int64_t>(marks_.size()); }
  /// Whether a draw is there; does not wait.
  bool has(int64_t draw) const;
  /// The ids [B] of one of the latest two draws; waits for it. An Error where scores are not
  /// finite.
  std::vector<int32_t> ids(int64_t draw) const;

 private:
  static constexpr int64_t kKept = 2;

  void draw_next();
  void keep_ids();

  Decoder& decoder_;
  const GenerationOptions& options_;
  DecoderState state_;
  Tensor scores_;  // [B, vocab]
  Tensor ids_;     // [B], drawn last
  Tensor latest_;  // [kKept, B]
  Tensor draws_;   // [1], so far
  std::unique_ptr<Routine> routine_;
  bool is_called_ = false;
  std::vector<int64_t> marks_;  // behind each draw
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
