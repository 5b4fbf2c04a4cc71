#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace regla {

/// `left` followed by `right` may be joined into `result`.
struct Merge {
  int32_t left;
  int32_t right;
  int32_t result;
};

/// Two adjacent ids as one number, ordered by the left one, then the right one.
constexpr uint64_t pair_key(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

/// Byte-pair encoding of one word (Sennrich et al. 2016, on bytes as in GPT-2): starting from
/// single bytes, the adjacent pair whose merge was learnt first is joined, the leftmost one among
/// equals, until no pair has a merge. Immutable, hence safe to share between threads.
class Bpe {
 public:
  /// `byte_ids[b]` is the token of byte b, or -1 if there is none; `merges` are in the order in
  /// which they were learnt. Errors: a byte of valid UTF-8 without a token, a pair merged twice.
  Bpe(const std::array<int32_t, 256>& byte_ids, std::vector<Merge> merges);

  /// Appends the ids of a word. O(n log n) in its length, so a text without any spaces is no trap.
  /// Bytes without a token are left out.
  void encode(std::string_view word, std::vector<int32_t>& out) const;

  /// False if some byte has no token, which only bytes outside valid UTF-8 may lack.
  bool knows_every_byte() const;
  const std::vector<Merge>& merges() const { return merges_; }

 private:
  struct Symbol;
  struct Candidate;
  void join(std::vector<Symbol>& symbols) const;

  std::array<int32_t, 256> byte_ids_;
  std::vector<Merge> merges_;
  std::unordered_map<uint64_t, int32_t> ranks_;  // pair_key -> index in merges_
};

}  // namespace regla
