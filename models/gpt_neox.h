#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/decoder.h"

namespace regla {

/// GPT-NeoX (Black et al. 2022), whose checkpoints Pythia's are (Biderman et al. 2023), as folders
/// of Hugging Face's hub: config.json and model.safetensors, or its shards beside an index. What is
/// read and written there is in docs/pythia.md.

/// What is taken otherwise than a folder says: a model of other sizes of rotation, or of sequential
/// blocks, has tensors of the same shapes.
struct GptNeoxOverrides {
  bool sequential = false;
  std::optional<double> rotary_pct = {};
};

/// What there is to say about a folder that was read.
struct GptNeoxSummary {
  std::vector<std::string> files;     ///< of tensors
  std::vector<std::string> types;     ///< of the weights, as the files call them
  int64_t buffers = 0;                ///< tensors passed over, which are no weights
  std::vector<std::string> warnings;  ///< what is otherwise than the folder says
};

/// A decoder with the weights of a folder, in F32, or in F64 where one of them is. Errors, one
/// line that names the file: another architecture, weights in pytorch_model.bin alone, a shard that
/// is not there, and tensors that are missing, surplus, named twice, of another shape than
/// config.json says, of a type that is no F32, F16, BF16 or F64, or not finite.
std::unique_ptr<Decoder> read_gpt_neox(const std::filesystem::path& folder,
                                       const GptNeoxOverrides& overrides, GptNeoxSummary& summary);

/// Whether a folder's config.json names an architecture, as those of the hub do and this project's
/// do not. An Error where it is no JSON object.
bool names_architecture(const std::filesystem::path& folder);

/// Why a decoder of this configuration is none of GPT-NeoX's, in a few words; empty: it is one.
std::string gpt_neox_obstacle(const ModelConfig& config);

/// Writes the decoder for `transformers`: model.safetensors, generation_config.json, then
/// config.json. Texts end with the token `end_of_text`; ids from `entries` on are padding. An Error
/// where gpt_neox_obstacle says why.
void write_gpt_neox(const std::filesystem::path& folder, Decoder& decoder, int32_t end_of_text,
                    int32_t entries);

}  // namespace regla
