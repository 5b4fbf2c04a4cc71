#include "text/tokenizer.h"

#include <algorithm>
#include <functional>
#include <unordered_map>
#include <utility>

#include "core/check.h"
#include "core/hash.h"
#include "core/parallel.h"
#include "text/pre_tokenizer.h"
#include "text/unicode.h"

namespace regla {
namespace {

// Longer words hardly ever come twice, and a cache of this many words is some 30 MB.
constexpr size_t kLongestCachedWord = 64;
constexpr size_t kCachedWords = 1 << 18;
constexpr int64_t kDocumentsPerBlock = 16;

}  // namespace

// The ids of words seen before. Each thread has its own, so that encoding needs no lock; what it
// holds never changes a result.
struct Tokenizer::WordCache {
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view word) const { return hash_bytes(word); }
  };
  struct Range {
    size_t begin;
    size_t count;
  };
  std::unordered_map<std::string, Range, Hash, std::equal_to<>> words;
  std::vector<int32_t> ids;
};

Tokenizer::Tokenizer(TokenizerParts parts)
    : parts_(std::move(parts)), bpe_(parts_.byte_ids, parts_.merges) {
  end_of_text_ = -1;
  for (const AddedToken& token : parts_.added) {
    if (token.content == kEndOfText) end_of_text_ = token.id;
    const size_t stage = token.normalized ? 1 : 0;
    AddedToken& wanted = added_[stage].emplace_back(token);
    if (token.normalized && parts_.normalize) wanted.content = nfc(token.content);
    added_begins_[stage][static_cast<unsigned char>(wanted.content.at(0))] = true;
  }
  check(end_of_text_ >= 0, "[tokenizer] expected a token ", kEndOfText, ", got none");
  for (auto& tokens : added_) {
    std::stable_sort(tokens.begin(), tokens.end(), [](const AddedToken& a, const AddedToken& b) {
      return a.content.size() > b.content.size();
    });
  }
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> out;
  WordCache cache;
  encode_text(text, false, cache, out);
  return out;
}

std::vector<int32_t> Tokenizer::encode_with_specials(std::string_view text) const {
  std::vector<int32_t> out;
  WordCache cache;
  encode_text(text, true, cache, out);
  return out;
}

std::vector<int32_t> Tokenizer::encode_documents(
    std::span<const std::string_view> documents) const {
  const auto count = static_cast<int64_t>(documents.size());
  const int64_t blocks = (count + kDocumentsPerBlock - 1) / kDocumentsPerBlock;
  std::vector<std::vector<int32_t>> parts(static_cast<size_t>(blocks));
  std::vector<WordCache> caches(static_cast<size_t>(threads()));
  parallel_for(count, kDocumentsPerBlock, [&](int64_t begin, int64_t end) {
    const auto block = static_cast<size_t>(begin / kDocumentsPerBlock);
    WordCache& cache = caches[static_cast<size_t>(thread_index())];
    for (int64_t i = begin; i < end; ++i) {
      encode_text(documents[static_cast<size_t>(i)], false, cache, parts[block]);
      parts[block].push_back(end_of_text_);
    }
  });
  size_t total = 0;
  for (const auto& part : parts) total += part.size();
  std::vector<int32_t> out;
  out.reserve(total);
  for (auto& part : parts) {
    out.insert(out.end(), part.begin(), part.end());
    std::vector<int32_t>().swap(part);
  }
  return out;
}

const AddedToken* Tokenizer::added_at(std::string_view text, size_t at, Stage stage,
                                      bool specials) const {
  const auto s = static_cast<size_t>(stage);
  if (!added_begins_[s][static_cast<unsigned char>(text[at])]) return nullptr;
  for (const AddedToken& token : added_[s]) {
    if ((specials || !token.special) && text.substr(at).starts_with(token.content)) return &token;
  }
  return nullptr;
}

// Appends the ids of the added tokens of a stage and hands the text between them to `on_gap`.
template <class OnGap>
void Tokenizer::split_at_added(std::string_view text, Stage stage, bool specials,
                               std::vector<int32_t>& out, OnGap on_gap) const {
  const auto& tokens = added_[static_cast<size_t>(stage)];
  const bool any = std::any_of(tokens.begin(), tokens.end(),
                               [&](const AddedToken& t) { return specials || !t.special; });
  size_t gap = 0;
  for (size_t at = 0; any && at < text.size();) {
    const AddedToken* token = added_at(text, at, stage, specials);
    if (token == nullptr) {
      ++at;
      continue;
    }
    on_gap(text.substr(gap, at - gap));
    out.push_back(token->id);
    at += token->content.size();
    gap = at;
  }
  on_gap(text.substr(gap));
}

void Tokenizer::encode_text(std::string_view text, bool specials, WordCache& cache,
                            std::vector<int32_t>& out) const {
  split_at_added(text, Stage::Raw, specials, out, [&](std::string_view raw) {
    std::string changed;
    if (replaces_invalid() && count_invalid_utf8(raw) > 0) {
      changed = replace_invalid_utf8(raw);
      raw = changed;
    }
    if (parts_.normalize) {
      changed = nfc(raw);
      raw = changed;
    }
    split_at_added(raw, Stage::Normalized, specials, out,
                   [&](std::string_view plain) { encode_words(plain, cache, out); });
  });
}

void Tokenizer::encode_words(std::string_view text, WordCache& cache,
                             std::vector<int32_t>& out) const {
  if (!parts_.split_words) {
    bpe_.encode(text, out);
    return;
  }
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = word_end(text, begin);
    const std::string_view word = text.substr(begin, end - begin);
    begin = end;
    if (word.size() == 1 || word.size() > kLongestCachedWord) {
      bpe_.encode(word, out);
      continue;
    }
    const auto found = cache.words.find(word);
    if (found != cache.words.end()) {
      const auto first = cache.ids.begin() + static_cast<std::ptrdiff_t>(found->second.begin);
      out.insert(out.end(), first, first + static_cast<std::ptrdiff_t>(found->second.count));
      continue;
    }
    const size_t before = out.size();
    bpe_.encode(word, out);
    if (cache.words.size() >= kCachedWords) continue;
    cache.words.emplace(word, WordCache::Range{cache.ids.size(), out.size() - before});
    cache.ids.insert(cache.ids.end(), out.begin() + static_cast<std::ptrdiff_t>(before), out.end());
  }
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string out;
  for (const int32_t id : ids) {
    check(id >= 0 && id < vocab_size(), "[tokenizer] expected ids from 0 to ", vocab_size() - 1,
          ", got ", id);
    out += parts_.tokens[static_cast<size_t>(id)];
  }
  return out;
}

uint64_t Tokenizer::hash() const { return hash_bytes(to_json()); }

}  // namespace regla
