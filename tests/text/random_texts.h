#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace regla::test {

/// Texts of all that tokenizers trip over: words, numbers, contractions, every white space, scripts
/// with marks that combine or do not, Hangul in syllables and in parts, emoji in sequences,
/// controls, what normalisation takes apart, added tokens and pieces of them. They are those of
/// tokenizers_comparison.py, from the same linear congruential generator (Knuth's MMIX).
class RandomTexts {
 public:
  std::string next() {
    std::string text;
    for (uint64_t pieces = 1 + below(12); pieces > 0; --pieces) {
      const uint64_t kind = below(kKinds.size() + 4);
      if (kind >= kKinds.size()) {
        text += kWords[below(kWords.size())];
        continue;
      }
      for (const Run& run : kKinds[kind]) {
        for (uint64_t n = 1 + below(run.most); n > 0; --n) {
          add(text, static_cast<uint32_t>(run.first + below(run.count)));
        }
      }
    }
    return text;
  }

 private:
  /// Up to `most` characters, each one of `count` from `first` on.
  struct Run {
    uint64_t most, first, count;
  };

  uint64_t below(uint64_t count) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return (state_ >> 33) % count;
  }

  static void add(std::string& text, uint32_t code) {
    const auto byte = [](uint32_t bits) { return static_cast<char>(bits); };
    const auto later = [&](int shift) { return byte(0x80 | ((code >> shift) & 0x3F)); };
    if (code < 0x80) {
      text += byte(code);
    } else if (code < 0x800) {
      text += {byte(0xC0 | code >> 6), later(0)};
    } else if (code < 0x10000) {
      text += {byte(0xE0 | code >> 12), later(6), later(0)};
    } else {
      text += {byte(0xF0 | code >> 18), later(12), later(6), later(0)};
    }
  }

  inline static const std::vector<std::vector<Run>> kKinds = {
      {{10, 'a', 26}},
      {{10, 'a', 26}},
      {{1, 'A', 26}, {6, 'a', 26}},
      {{30, ' ', 1}},
      {{6, '0', 10}},
      {{4, '!', 15}},
      {{4, ':', 7}},
      {{3, '[', 6}},
      {{3, '{', 4}},
      {{3, 0, 0x20}},
      {{1, 0x7F, 0x22}},
      {{2, 0x2000, 0x30}},
      {{1, 0x3000, 0x40}},
      {{1, 'a', 26}, {4, 0x300, 0x70}},
      {{4, 0xC0, 0x180}},
      {{4, 0x391, 25}, {1, 0x300, 0x46}},
      {{4, 0x410, 64}},
      {{4, 0x5D0, 27}, {2, 0x5B0, 14}},
      {{4, 0x621, 26}, {2, 0x64B, 8}},
      {{3, 0x915, 37}, {1, 0x93C, 1}, {1, 0x93E, 15}},
      {{2, 0x958, 8}},
      {{6, 0x4E00, 20902}},
      {{3, 0xAC00, 11172}},
      {{1, 0x1100, 19}, {1, 0x1161, 21}, {1, 0x11A7, 28}},
      {{2, 0xF71, 20}},
      {{2, 0x2120, 0x2F}},
      {{1, 0xFB1D, 0x33}},
      {{2, 0x1F600, 80}},
      {{1, 0x1F466, 4}, {1, 0x1F3FB, 5}, {1, 0x200D, 1}, {1, 0x2764, 1}, {1, 0xFE0F, 1}},
      {{2, 0x1F1E6, 26}},
      {{1, 0x1D15E, 7}},
      {{3, 0xE000, 64}},
      {{1, 0xFFF0, 14}},
      {{1, 0x10FFF0, 14}},
      {{2, 0x2070, 0x30}},
      {{2, 0x2160, 0x28}},
      {{3, 0x304B, 20}, {1, 0x3099, 2}}};
  static constexpr std::array<std::string_view, 16> kWords = {
      "'s",          "'t", "'re",   "'ve",  "'m",  "'ll", "'d", "'S", "'RE", "<|endoftext|>",
      "<|endoftext", "|>", "<|pad", "\r\n", " \n", "  \n"};

  uint64_t state_ = 20;
};

}  // namespace regla::test
