#include "training/text_sample.h"

#include <algorithm>

#include "text/batches.h"

namespace regla {

TextSample sample_text(const TokenStream& text, int32_t end_of_text, int64_t sequences,
                       int64_t length, bool reset_at_documents) {
  check(sequences > 0 && length > 0,
        "[analyse] expected sequences and a length of at least 1, got ", sequences, " and ",
        length);
  const auto count = static_cast<int64_t>(text.ids().size());
  const int64_t rows = std::clamp<int64_t>((count - 1) / length, 1, sequences);
  // The first segment of every stream (text/batches.h): streams lie evenly along the text.
  const Batch batch = Batches(text.ids(), rows, length, end_of_text).at(0);
  const Shape shape = {batch.batch, batch.length};
  return {Tensor::of(shape, batch.inputs),
          reset_at_documents ? Tensor::of(shape, batch.reset) : Tensor{}};
}

}  // namespace regla
