#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "models/decoder.h"

namespace regla {

/// Tokens of which the last `scored` are to be predicted from those before; there is at least one
/// before them.
struct ScoredText {
  std::vector<int32_t> ids;
  int64_t scored = 0;
};

struct TextScore {
  double log_likelihood = 0;  // of all tokens that are scored
  bool is_greedy = false;     // whether each of them was the likeliest; where it is asked for
};

struct ChoiceOptions {
  /// Whether what the texts of a group begin with alike is computed once. Without, each is computed
  /// from its beginning.
  bool shares = true;
  bool greedy = false;          ///< whether to tell is_greedy
  int64_t batch_tokens = 4096;  ///< tokens of a batch, if a text is not longer
};

/// What was done for the scores.
struct ChoiceCounts {
  int64_t tokens = 0;  ///< that went through the decoder, without padding
  int64_t shared = 0;  ///< groups of several texts that were computed from a shared beginning
  int64_t apart = 0;   ///< groups of several texts that have none
};

/// The scores of groups of texts, usually a question with its choices. The decoder's state behind
/// what a group's texts begin with alike, be it scored or not, is computed once, and each text goes
/// on from a copy, beside texts of other groups that are about as long. Groups whose beginnings are
/// a batch differ little in that length, and what some have more of it counts as the beginning of
/// their choices. `progress(done, total)`, when given, is called after
/// each batch with the number of texts. An Error for a model that sees later tokens (key_max:
/// sequence), whose scores would be those of what follows a text, too.
std::vector<std::vector<TextScore>> score_choices(
    Decoder& decoder, std::span<const std::vector<ScoredText>> groups,
    const ChoiceOptions& options = {}, ChoiceCounts* counts = nullptr,
    const std::function<void(int64_t, int64_t)>& progress = {});

}  // namespace regla
