// libFuzzer target: any bytes as tokenizer.json. Only regla::Error may come out of the reader, and
// what it accepts must encode, decode, write itself and read that back.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "core/check.h"
#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    const auto tokenizer = regla::tokenizer_from_json(bytes);
    const std::string_view text = bytes.substr(0, std::min<size_t>(size, 1000));
    const auto ids = tokenizer->encode(text);
    const bool exact =
        !tokenizer->parts().normalize &&
        std::count(tokenizer->parts().byte_ids.begin(), tokenizer->parts().byte_ids.end(), -1) == 0;
    const std::string back = tokenizer->decode(ids);
    tokenizer->decode(tokenizer->encode_with_specials(text));
    const auto again = regla::tokenizer_from_json(tokenizer->to_json());
    if (again->encode(text) != ids) std::abort();
    if (exact && back != text) std::abort();
  } catch (const regla::Error&) {
  }
  return 0;
}
