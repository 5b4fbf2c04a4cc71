#include "text/bpe_trainer.h"

#include <algorithm>
#include <queue>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/hash.h"
#include "text/byte_tokenizer.h"
#include "text/pre_tokenizer.h"

namespace regla {
namespace {

// A distinct word of the text as its tokens so far.
struct Word {
  std::vector<int32_t> ids;
  int64_t count;
};

struct Candidate {
  int64_t count;
  uint64_t pair;
  bool operator<(const Candidate& other) const {
    return count != other.count ? count < other.count : pair > other.pair;
  }
};

struct ViewHash {
  size_t operator()(std::string_view text) const { return hash_bytes(text); }
};

// In the order of their first occurrence.
std::vector<Word> distinct_words(std::string_view text) {
  std::vector<Word> words;
  std::unordered_map<std::string_view, size_t, ViewHash> index;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = word_end(text, begin);
    const std::string_view bytes = text.substr(begin, end - begin);
    begin = end;
    if (bytes.size() < 2) continue;
    const auto [entry, is_new] = index.emplace(bytes, words.size());
    if (is_new) {
      Word word{{}, 0};
      for (const char c : bytes) word.ids.push_back(static_cast<unsigned char>(c));
      words.push_back(std::move(word));
    }
    ++words[entry->second].count;
  }
  return words;
}

// Keeps the count of every pair up to date while pairs are merged, so that a merge costs only the
// words that hold it.
class PairCounts {
 public:
  explicit PairCounts(std::vector<Word> words) : words_(std::move(words)) {
    for (size_t w = 0; w < words_.size(); ++w) {
      const std::vector<int32_t>& ids = words_[w].ids;
      for (size_t i = 0; i + 1 < ids.size(); ++i) note(pair_key(ids[i], ids[i + 1]), w);
      count_pairs(words_[w], 1);
    }
    for (const auto& [pair, count] : counts_) queue_.push({count, pair});
  }

  /// The most frequent pair with its count; a count of 0 when no pair is left.
  Candidate best() {
    while (!queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      // Counts that fell since the entry was queued: queue it again where it belongs now.
      const int64_t now = counts_[top.pair];
      if (now == top.count) return top;
      if (now > 0 && now < top.count) queue_.push({now, top.pair});
    }
    return {0, 0};
  }

  void merge(uint64_t pair, int32_t result) {
    std::vector<uint64_t> fresh;
    const std::vector<size_t> holders = std::move(holders_[pair]);
    for (const size_t w : holders) {
      count_pairs(words_[w], -1);
      join(words_[w].ids, pair, result);
      count_pairs(words_[w], 1);
      const std::vector<int32_t>& ids = words_[w].ids;
      for (size_t i = 0; i + 1 < ids.size(); ++i) {
        if (ids[i] != result && ids[i + 1] != result) continue;
        const uint64_t made = pair_key(ids[i], ids[i + 1]);
        note(made, w);
        fresh.push_back(made);
      }
    }
    std::sort(fresh.begin(), fresh.end());
    fresh.erase(std::unique(fresh.begin(), fresh.end()), fresh.end());
    for (const uint64_t made : fresh) queue_.push({counts_[made], made});
    holders_.erase(pair);
    counts_.erase(pair);
  }

 private:
  void note(uint64_t pair, size_t word) {
    std::vector<size_t>& holders = holders_[pair];
    if (holders.empty() || holders.back() != word) holders.push_back(word);
  }

  void count_pairs(const Word& word, int64_t sign) {
    for (size_t i = 0; i + 1 < word.ids.size(); ++i) {
      counts_[pair_key(word.ids[i], word.ids[i + 1])] += sign * word.count;
    }
  }

  static void join(std::vector<int32_t>& ids, uint64_t pair, int32_t result) {
    size_t kept = 0;
    for (size_t i = 0; i < ids.size(); ++kept) {
      const bool match = i + 1 < ids.size() && pair_key(ids[i], ids[i + 1]) == pair;
      ids[kept] = match ? result : ids[i];
      i += match ? 2 : 1;
    }
    ids.resize(kept);
  }

  std::vector<Word> words_;
  std::unordered_map<uint64_t, int64_t> counts_;
  std::unordered_map<uint64_t, std::vector<size_t>> holders_;  // words that have or had the pair
  std::priority_queue<Candidate> queue_;
};

}  // namespace

std::unique_ptr<Tokenizer> train_bpe(std::string_view text, int32_t vocab_size) {
  check(vocab_size >= 257, "[tokenizer] expected vocab_size of at least 257, got ", vocab_size);
  TokenizerParts parts = byte_parts();
  // Two merges may spell the same token, "a"+"bc" and "ab"+"c"; it then keeps its first id. None
  // can spell <|endoftext|>, since no word holds letters and punctuation.
  std::unordered_map<std::string, int32_t> ids;
  PairCounts pairs(distinct_words(text));
  while (static_cast<int32_t>(parts.tokens.size()) + 1 < vocab_size) {
    const Candidate best = pairs.best();
    if (best.count < 2) break;
    const auto left = static_cast<int32_t>(best.pair >> 32);
    const auto right = static_cast<int32_t>(best.pair & 0xFFFFFFFF);
    const std::string joined =
        parts.tokens[static_cast<size_t>(left)] + parts.tokens[static_cast<size_t>(right)];
    const auto id = static_cast<int32_t>(parts.tokens.size());
    const auto [entry, is_new] = ids.emplace(joined, id);
    if (is_new) parts.tokens.push_back(joined);
    parts.merges.push_back({left, right, entry->second});
    pairs.merge(best.pair, entry->second);
  }
  append_end_of_text(parts);
  return std::make_unique<Tokenizer>(std::move(parts));
}

}  // namespace regla
