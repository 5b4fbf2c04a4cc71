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

/// The ids of all documents of a text, each followed by `<|endoftext|>`. Copies share the memory.
/// It is memory of our own, 4 bytes per token: a mapped file that somebody else cuts short would
/// end the program, hours into a training.
class TokenStream {
 public:
  TokenStream(std::vector<int32_t> ids, const TextCounts& counts)
      : ids_(std::make_shared<const std::vector<int32_t>>(std::move(ids))), counts_(counts) {}

  std::span<const int32_t> ids() const { return *ids_; }
  /// Of the text that the ids were made from.
  const TextCounts& counts() const { return counts_; }

 private:
  std::shared_ptr<const std::vector<int32_t>> ids_;
  TextCounts counts_;
};

/// Tokenises a text without a cache.
TokenStream tokenize_text(std::string_view text, const Tokenizer& tokenizer);

/// The tokens of a split, from the cache if it has them, else tokenised and put there. The file is
/// named by the split and by hashes of all that decides the tokens (the stored text, this program's
/// rules, the version of Unicode, the tokenizer), so a change of any finds no stale tokens, and a
/// file that is damaged or cut short is written anew. Files are never deleted: the folder may be
/// emptied at any time. Errors: those of Corpus::read.
TokenStream tokenize_split(const Corpus& corpus, Split split, const Tokenizer& tokenizer);

/// What train_bpe learns from the train split, from the cache if it has that, else learnt and put
/// there. The file is named by a hash of all that decides it: with tokens' file, but with
/// `vocab_size` for the tokenizer; everything else is as there. Errors: those of Corpus::read and
/// train_bpe.
std::unique_ptr<Tokenizer> learn_tokenizer(const Corpus& corpus, int32_t vocab_size);

/// The folder of the cache: $REGLA_CACHE, else $XDG_CACHE_HOME/regla, else ~/.cache/regla, else
/// regla-<user> in the folder for temporary files, made here. Empty, for no cache, when that is not
/// the user's own or others may write into it.
std::string cache_folder();

}  // namespace regla
