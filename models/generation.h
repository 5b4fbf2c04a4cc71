#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "backends/routine.h"
#include "models/text_state.h"

namespace regla {

/// How the next token is drawn from the scores.
struct SamplingOptions {
  double temperature = 1;  ///< divides the scores; 0: always the token with the highest score
  int64_t top_k = 0;       ///< only the so many most probable tokens; 0: all
  double top_p = 1;        ///< of those, the most probable that together reach this probability
  double min_p = 0;  ///< of those, the ones at least so many times as probable as the likeliest
  double repetition_penalty = 1;  ///< above 1 tokens of prompt and text become less probable
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
  int32_t vocab = 0;      ///< ids from here on are padding and never drawn; 0: the whole vocabulary
  int32_t stop = -1;      ///< the token that ends a text, which is not returned; -1: none
  int64_t first_row = 0;  ///< the first sequence draws what a sequence of this number draws
};

/// Texts that grow token by token, one for each sequence. What differs between two tokens lies in
/// tensors, so that the work for one is done again without asking the host, as long as the state
/// stays where it is; the host may ask for a token before it has read the one before.
class Continuation {
 public:
  /// Behind `text`. Its first draw is asked for. `decoder` and `options` must live as long.
  Continuation(Decoder& decoder, TextState text, const GenerationOptions& options);

  /// Has every sequence read what was drawn last, and asks for another draw.
  void advance();
  /// How many draws were asked for.
  int64_t asked() const { return asked_; }
  /// Whether one of the latest two draws is there; does not wait.
  bool has(int64_t draw) const;
  /// The ids [B] of one of the latest two draws; waits for it. An Error where scores are not
  /// finite.
  std::vector<int32_t> ids(int64_t draw) const;

  /// Where the texts stand: all draws but the last were read, and that will be the next one again.
  /// What was `seen`, and `last`, is as it was in the beginning.
  TextState text() const;
  const DecoderState& state() const { return text_.state; }

 private:
  static constexpr int64_t kKept = 2;

  void draw_next(const Tensor& read);
  void keep_ids();
  void check_kept(int64_t draw) const;

  Decoder& decoder_;
  const GenerationOptions& options_;
  TextState text_;
  Tensor seen_;    // [B, vocab] I32 flags, or undefined: nobody asks
  Tensor ids_;     // [B], drawn last
  Tensor latest_;  // [kKept, B]
  Tensor draws_;   // [1], so far
  std::unique_ptr<Routine> routine_;
  bool is_called_ = false;
  int64_t asked_ = 0;
  std::array<int64_t, kKept> marks_{};  // behind the latest draws
};

/// Sees each token of each sequence at once; returning false ends that sequence.
using OnToken = std::function<bool(int64_t sequence, int32_t id)>;

/// Continues texts token by token; returns the new ids of each. A sequence that ends takes part
/// until all have, and more may be read than is returned: `texts` are used up. An Error for a score
/// that is not finite, be it of padding.
std::vector<std::vector<int32_t>> continue_texts(Decoder& decoder, TextState& texts,
                                                 const GenerationOptions& options,
                                                 const OnToken& on_token = {});

/// The same for a single text that goes on afterwards: it then stands behind the ids returned, so
/// that going on from there gives what more tokens at once would have given, bit by bit.
std::vector<int32_t> write_on(Decoder& decoder, TextState& text, const GenerationOptions& options,
                              const std::function<bool(int32_t)>& on_token = {});

/// Continues `prompt` (at least one id): the prompt in one chunked pass, then token by token.
/// Returns the new ids; `on_token`, when given, sees each at once and ends generation by returning
/// false.
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
