// libFuzzer target: any bytes as the config.json of a GPT-NeoX. Only regla::Error may come out of
// the reader; what it accepts is a GPT-NeoX again, and reads back as the same.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "models/gpt_neox.h"
#include "models/gpt_neox_format.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    regla::GptNeoxFacts facts;
    const auto config = regla::gpt_neox_config(regla::parse_json(bytes, "[fuzz]"), facts);
    if (config.layers > 64) return 0;  // each is looked at
    if (!regla::gpt_neox_obstacle(config).empty()) std::abort();
    const regla::Json json = regla::gpt_neox_json(config, regla::DType::F32, 0);
    if (regla::gpt_neox_config(json, facts) != config) std::abort();
  } catch (const regla::Error&) {
  }
  return 0;
}
