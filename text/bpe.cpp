#include "text/bpe.h"

#include <algorithm>
#include <queue>

#include "core/check.h"

namespace regla {
namespace {

// 0xC0, 0xC1 and 0xF5..0xFF are in no UTF-8 text, and vocabularies made elsewhere lack them.
constexpr bool occurs_in_utf8(int byte) { return byte != 0xC0 && byte != 0xC1 && byte < 0xF5; }

}  // namespace

// A token in the doubly linked list that a word is while pairs are being joined.
struct Bpe::Symbol {
  int32_t id;  // -1 once it was joined to its left neighbour
  int64_t previous;
  int64_t next;
};

struct Bpe::Candidate {
  int32_t rank;
  int64_t left;
  bool operator>(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : left > other.left;
  }
};

Bpe::Bpe(const std::array<int32_t, 256>& byte_ids, std::vector<Merge> merges)
    : byte_ids_(byte_ids), merges_(std::move(merges)) {
  for (int byte = 0; byte < 256; ++byte) {
    check(byte_ids_[static_cast<size_t>(byte)] >= 0 || !occurs_in_utf8(byte),
          "[tokenizer] expected a token for every byte of UTF-8, got none for byte ", byte);
  }
  ranks_.reserve(merges_.size());
  for (size_t rank = 0; rank < merges_.size(); ++rank) {
    const uint64_t key = pair_key(merges_[rank].left, merges_[rank].right);
    check(ranks_.emplace(key, static_cast<int32_t>(rank)).second,
          "[tokenizer] expected every pair to be merged once, got merge ", rank, " a second time");
  }
}

bool Bpe::knows_every_byte() const {
  return std::all_of(byte_ids_.begin(), byte_ids_.end(), [](int32_t id) { return id >= 0; });
}

void Bpe::join(std::vector<Symbol>& symbols) const {
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto at = [&](int64_t i) -> Symbol& { return symbols[static_cast<size_t>(i)]; };
  const auto offer = [&](int64_t left) {
    if (left < 0 || at(left).next < 0) return;
    const auto found = ranks_.find(pair_key(at(left).id, at(at(left).next).id));
    if (found != ranks_.end()) queue.push({found->second, left});
  };
  for (size_t i = 0; i < symbols.size(); ++i) offer(static_cast<int64_t>(i));
  while (!queue.empty()) {
    const auto [rank, left] = queue.top();
    queue.pop();
    // A neighbour may have been joined since the offer; then the pair is no longer this one.
    Symbol& symbol = at(left);
    if (symbol.id < 0 || symbol.next < 0) continue;
    Symbol& next = at(symbol.next);
    const Merge& merge = merges_[static_cast<size_t>(rank)];
    if (merge.left != symbol.id || merge.right != next.id) continue;
    symbol.id = merge.result;
    symbol.next = next.next;
    next.id = -1;
    if (symbol.next >= 0) at(symbol.next).previous = left;
    offer(symbol.previous);
    offer(left);
  }
}

void Bpe::encode(std::string_view word, std::vector<int32_t>& out) const {
  const auto id_of = [&](char c) { return byte_ids_[static_cast<unsigned char>(c)]; };
  if (merges_.empty() || word.size() == 1) {
    for (const char c : word) {
      if (id_of(c) >= 0) out.push_back(id_of(c));
    }
    return;
  }
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  for (const char c : word) {
    const auto index = static_cast<int64_t>(symbols.size());
    if (id_of(c) >= 0) symbols.push_back({id_of(c), index - 1, index + 1});
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;
  join(symbols);
  for (const Symbol& symbol : symbols) {
    if (symbol.id >= 0) out.push_back(symbol.id);
  }
}

}  // namespace regla
