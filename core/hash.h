#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

namespace regla {

/// Mixes one 64-bit word into a hash. For a fixed word it is a bijection of the hash, so no
/// information is lost on the way.
constexpr uint64_t mix_hash(uint64_t hash, uint64_t word) {
  hash = (hash ^ word) * 0x9E3779B97F4A7C15ULL;
  return hash ^ (hash >> 29);
}

/// A 64-bit hash of bytes, eight at a time: gigabytes per second, so that hashing a whole corpus at
/// the start of a run goes unnoticed. It tells texts apart; it does not withstand somebody who
/// wants a collision.
inline uint64_t hash_bytes(std::string_view bytes, uint64_t seed = 0) {
  uint64_t hash = mix_hash(seed, bytes.size() + 0x51ED270B0F0F0F01ULL);
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + i, 8);
    hash = mix_hash(hash, word);
  }
  uint64_t rest = 0;
  // An empty view may hold a null pointer, which memcpy must not see.
  if (i < bytes.size()) std::memcpy(&rest, bytes.data() + i, bytes.size() - i);
  hash = mix_hash(hash, rest);
  return mix_hash(hash, hash >> 32);
}

/// Such a number in 16 digits.
inline std::string hexadecimal(uint64_t number) {
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(number));
  return digits;
}

}  // namespace regla
