#pragma once

#include <cstdint>

#include "core/tensor.h"
#include "text/token_cache.h"

namespace regla {

/// Sequences of a text for an analysis: not everything, but from everywhere.
struct TextSample {
  Tensor ids;    // [B, T] I32
  Tensor reset;  // [B, T] I32, 1 at each `<|endoftext|>`; undefined when not asked for

  int64_t tokens() const { return ids.numel(); }
};

/// `sequences` of them with T = `length`, evenly spaced, or as many as there are. An Error when
/// there is not even one.
TextSample sample_text(const TokenStream& text, int32_t end_of_text, int64_t sequences,
                       int64_t length, bool reset_at_documents = false);

}  // namespace regla
