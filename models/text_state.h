#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <vector>

#include "models/decoder.h"

namespace regla {

/// Where texts stand, one for each sequence: what the decoder remembers of the tokens it has read,
/// and what it expects next.
struct TextState {
  DecoderState state;
  Tensor scores;                        // [B, vocab] of the next token
  std::vector<std::set<int32_t>> seen;  // ids of the tokens read, by sequence
  std::vector<int32_t> last;            // id of the token read last, by sequence
  int64_t draws = 0;                    // tokens of each that were drawn, not given

  /// Whether nothing was read.
  bool empty() const { return state.empty(); }
};

/// Has the decoder read prompts (at least one, of at least one id each), every one in a chunked
/// pass of its own, so that what it remembers of it has the same bits whatever the others are. An
/// Error for a mixer without a step form.
TextState read_prompts(Decoder& decoder, std::span<const std::vector<int32_t>> prompts);

/// Has the decoder read more of a single text, in one chunked pass.
void read_on(Decoder& decoder, TextState& text, std::span<const int32_t> ids);

}  // namespace regla
