#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/corpus.h"
#include "text/tokenizer.h"

namespace regla {

/// The ids of all documents of a text, each followed by `<|endoftext|>`. Copies share the memory,
/// which is a mapped file or a vector.
class TokenStream {
 public:
  /// Keeps ids in memory.
  TokenStream(std::vector<int32_t> ids, const TextCounts& counts);
  /// Shows ids that `owner` keeps alive.
  TokenStream(std::span<const int32_t> ids, std::shared_ptr<const void> owner,
              const TextCounts& counts)
      : ids_(ids), owner_(std::move(owner)), counts_(counts) {}

  std::span<const int32_t> ids() const { return ids_; }
  /// Of the text that the ids were made from.
  const TextCounts& counts() const { return counts_; }

 private:
  std::span<const int32_t> ids_;
  std::shared_ptr<const void> owner_;
  TextCounts counts_;
};

/// Tokenises a text without a cache.
TokenStream tokenize_text(std::string_view text, const Tokenizer& tokenizer);

/// The tokens of a split, from the cache if it has them, else tokenised and put there. The file is
/// named by the split and by the hashes of the stored text and of the tokenizer, so a changed text
/// or tokenizer finds no stale tokens, and a file that is damaged or cut short is written anew.
/// Where the cache cannot be written the tokens stay in memory. Files are never deleted: the
/// folder may be emptied at any time. Errors: those of Corpus::read.
TokenStream tokenize_split(const Corpus& corpus, Split split, const Tokenizer& tokenizer);

/// What train_bpe learns from the train split, from the cache if it has that, else learnt and put
/// there. The file is named by the hash of the stored text and by `vocab_size`; everything else is
/// as with tokens. Errors: those of Corpus::read and train_bpe.
std::unique_ptr<Tokenizer> learn_tokenizer(const Corpus& corpus, int32_t vocab_size);

/// The folder of the cache: $REGLA_CACHE, else $XDG_CACHE_HOME/regla, else ~/.cache/regla, else
/// regla-<user> in the folder for temporary files, made here. Empty, for no cache, when that is not
/// the user's own or others may write into it.
std::string cache_folder();

}  // namespace regla
