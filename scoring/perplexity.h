#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string_view>

#include "models/decoder.h"
#include "text/token_cache.h"

namespace regla {

/// What a token is predicted from when a split is scored. The split is one sequence of tokens,
/// `<|endoftext|>` after each document included, and one more `<|endoftext|>` before the first
/// token, which is not scored itself.
enum class Context : uint8_t {
  /// Windows of T inputs every max(1, T/2) (rounded down): the first scores all its tokens, each
  /// other one those that the windows before did not reach. The same for every mixer.
  Window,
  /// One pass in segments of T, each from the state that the one before left.
  Carried,
};
constexpr std::array<std::string_view, 2> names_of(Context) { return {"window", "carried"}; }

struct EvaluationOptions {
  Context context = Context::Window;
  int64_t length = 256;             ///< T
  int64_t batch = 8;                ///< windows, or segments, that count as a batch
  bool reset_at_documents = false;  ///< forget at each `<|endoftext|>`, as training may have done
  int64_t max_batches = 0;          ///< stop after so many batches; 0: the whole split
};

/// The score of a text, or of its beginning.
struct Evaluation {
  int64_t tokens = 0;  ///< scored, each once
  double nats = 0;     ///< sum of -ln p over them
  /// Bytes and words (white space, plus one per line end) of the text as it is. After `max_batches`
  /// the whole text's in proportion to the tokens that were scored.
  double bytes = 0;
  double words = 0;
  bool complete = true;  ///< false when `proceed` ended it early

  double loss() const;        ///< nats per token
  double perplexity() const;  ///< per token
  double word_perplexity() const;
  double bits_per_byte() const;  ///< `<|endoftext|>` costs bits too, but is no byte
};

/// Scores a text. `proceed(done, total)`, when given, is called after each batch and ends the
/// evaluation by returning false; a loss that is not finite ends it too, and is the result. Errors:
/// a text without tokens; carried context for softmax attention without a window, whose cache would
/// grow with the text.
Evaluation evaluate(Decoder& decoder, const TokenStream& text, int32_t end_of_text,
                    const EvaluationOptions& options,
                    const std::function<bool(int64_t, int64_t)>& proceed = {});

}  // namespace regla
