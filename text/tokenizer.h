#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/bpe.h"

namespace regla {

/// The text of the token that ends every document.
inline constexpr std::string_view kEndOfText = "<|endoftext|>";

/// A token that is found in the text as it is written, before any merging.
struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool special = false;     // a control token such as <|endoftext|>; data never produces it
  bool normalized = false;  // looked for after normalisation rather than before
};

/// Everything a Tokenizer consists of.
struct TokenizerParts {
  std::vector<std::string> tokens;      // the bytes of each id
  std::array<int32_t, 256> byte_ids{};  // the id of each single byte, -1 for none
  std::vector<Merge> merges;            // in the order in which they were learnt
  std::vector<AddedToken> added;        // kEndOfText is one of them
  bool split_words = true;              // merge within the words of text/pre_tokenizer.h only
  bool normalize = false;               // bring text into normalisation form C first
};

/// A byte-level BPE tokenizer, which is all the tokenizers there are here: without merges it is
/// the byte tokenizer. `decode(encode(x)) == x` for every byte string x, valid UTF-8 or not,
/// unless the tokenizer normalises or lacks tokens for bytes that are not UTF-8 (GPT-NeoX does
/// both); such bytes then become U+FFFD. Immutable: any number of threads may use one.
class Tokenizer {
 public:
  /// Errors: what Bpe refuses, and an end-of-text token that is not among the added ones.
  explicit Tokenizer(TokenizerParts parts);

  /// The ids of a text. `<|endoftext|>` written in the text is text like any other.
  std::vector<int32_t> encode(std::string_view text) const;
  /// The same, but special tokens written in the text become their ids: for prompts.
  std::vector<int32_t> encode_with_specials(std::string_view text) const;
  /// The ids of all documents one after the other, each followed by `end_of_text`. Documents are
  /// encoded in parallel; the result does not depend on the number of threads.
  std::vector<int32_t> encode_documents(std::span<const std::string_view> documents) const;

  /// The bytes of the tokens. A character may be spread over several tokens, so the bytes of a
  /// part of a text need not be valid UTF-8. Error: an id outside [0, vocab_size).
  std::string decode(std::span<const int32_t> ids) const;

  /// Whether bytes that are not UTF-8 become U+FFFD, each of them, since some have no token.
  bool replaces_invalid() const { return !bpe_.knows_every_byte(); }
  int32_t vocab_size() const { return static_cast<int32_t>(parts_.tokens.size()); }
  int32_t end_of_text() const { return end_of_text_; }
  const TokenizerParts& parts() const { return parts_; }

  /// The tokenizer in the form of Hugging Face's tokenizer.json.
  std::string to_json() const;
  /// A hash of to_json().
  uint64_t hash() const;

 private:
  struct WordCache;
  enum class Stage : size_t { Raw = 0, Normalized = 1 };

  void encode_text(std::string_view text, bool specials, WordCache& cache,
                   std::vector<int32_t>& out) const;
  void encode_words(std::string_view text, WordCache& cache, std::vector<int32_t>& out) const;
  const AddedToken* added_at(std::string_view text, size_t at, Stage stage, bool specials) const;
  template <class OnGap>
  void split_at_added(std::string_view text, Stage stage, bool specials, std::vector<int32_t>& out,
                      OnGap on_gap) const;

  TokenizerParts parts_;
  Bpe bpe_;
  int32_t end_of_text_ = 0;
  // Per stage: the added tokens, longest first, and the bytes they begin with.
  std::array<std::vector<AddedToken>, 2> added_;
  std::array<std::array<bool, 256>, 2> added_begins_{};
};

/// Reads the text of a tokenizer.json. Accepted are byte-level BPE models: merges as "a b" or
/// ["a", "b"], added tokens, an NFC normaliser or none, GPT-2's pre-tokenisation or none, and a
/// post-processor that adds no tokens. Every other setting is an Error that names it, unless it is
/// null, false or without effect on ids. `<|endoftext|>` is special whatever the file says.
std::unique_ptr<Tokenizer> tokenizer_from_json(std::string_view json);
/// The same from a file. Errors name the path.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path);
/// Writes to_json() so that the file is complete or absent, as AtomicFile does for a user's path.
void save_tokenizer(const Tokenizer& tokenizer, const std::string& path);

}  // namespace regla
