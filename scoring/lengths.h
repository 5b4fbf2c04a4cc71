#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "models/decoder.h"
#include "text/token_cache.h"

namespace regla {

struct LengthOptions {
  std::vector<int64_t> lengths;     ///< rising: where the buckets of positions end
  int64_t segment = 256;            ///< T, tokens that go through the decoder at once
  int64_t batch = 8;                ///< sequences at once
  int64_t stride = 0;               ///< from a sequence's beginning to the next; 0: the last length
  bool reset_at_documents = false;  ///< forget at each `<|endoftext|>`, as training may have done
};

/// The score of the tokens that stand behind at least `begin` and less than `end` others.
struct LengthBucket {
  int64_t begin, end;
  int64_t tokens = 0;
  double nats = 0;  ///< sum of -ln p over them

  double loss() const;        ///< nats per token
  double perplexity() const;  ///< per token
};

struct LengthEvaluation {
  int64_t sequences = 0;
  std::vector<LengthBucket> buckets;
};

/// Scores a text by position: sequences of the last length, one every `stride` tokens as far as
/// they fit, each from an empty state that is carried from segment to segment, softmax attention's
/// cache included. Where sequences overlap, a token counts once for each. `progress(done, total)`,
/// when given, is called with tokens. Ends early where a score is not finite, which is then in the
/// result. Errors: lengths that do not rise, a text that is shorter than the last.
LengthEvaluation evaluate_lengths(Decoder& decoder, const TokenStream& text, int32_t end_of_text,
                                  const LengthOptions& options,
                                  const std::function<void(int64_t, int64_t)>& progress = {});

}  // namespace regla
