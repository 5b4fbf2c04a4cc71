// libFuzzer target: any bytes as config.json. Only regla::Error may come out of the reader; what it
// accepts reads back as the same, and can be changed by an override of the same bytes.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "core/check.h"
#include "training/configuration.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    const regla::TrainingConfig config = regla::from_json(bytes);
    const std::string text = config.to_json();
    const regla::TrainingConfig again = regla::from_json(text);
    if (again != config.resolved() || again.to_json() != text) std::abort();
  } catch (const regla::Error&) {
  }
  try {
    regla::from_json(regla::apply_override("{}", bytes));
  } catch (const regla::Error&) {
  }
  return 0;
}
