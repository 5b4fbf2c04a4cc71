#include <cstddef>
#include <cstdint>

#include "core/check.h"
#include "storage/safetensors.h"

/// Any bytes are either a valid file or an Error; nothing else may come out.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto file =
        regla::parse_safetensors({reinterpret_cast<const std::byte*>(data), size}, "fuzz");
    for (const auto& [name, tensor] : file.tensors) {
      if (!tensor.defined() || !file.find(name).defined()) __builtin_trap();
    }
  } catch (const regla::Error&) {
  }
  return 0;
}
