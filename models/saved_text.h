#pragma once

#include <filesystem>
#include <string>

#include "models/text_state.h"

namespace regla {

/// What a saved text belongs to beside the decoder's own configuration and weights.
struct TextOrigin {
  std::string tokenizer;  ///< a hash of it
  std::string precision;  ///< as the configuration calls it
};

/// Writes where a single text stands, as safetensors: the tensors of its state by their names
/// (DecoderState::for_each), `scores` [1, vocab], `seen` [ids] and `last` [1] I32; what it belongs
/// to and a checksum are metadata. The file is complete or absent (AtomicFile).
void save_text(const std::filesystem::path& path, Decoder& decoder, const TextState& text,
               const TextOrigin& origin);

/// Reads such a file onto the decoder's device: on the device that wrote it the text goes on with
/// the same bits. An Error for a file that is cut off or damaged, and for one of another model,
/// precision or tokenizer.
TextState load_text(const std::filesystem::path& path, Decoder& decoder, const TextOrigin& origin);

}  // namespace regla
