#include "text/tokenizer.h"

#include <charconv>
#include <cstdio>
#include <optional>

#include "app/command.h"
#include "app/options.h"
#include "storage/files.h"
#include "text/bpe_trainer.h"
#include "text/corpus.h"
#include "text/unicode.h"

namespace regla::app {
namespace {

constexpr uint64_t kTextLimit = uint64_t{1} << 32;  // bytes

struct TokenizerArguments {
  std::string data, kind, out;  // train
  int64_t vocab_size = 8192;
  std::string tokenizer;  // encode, decode
  std::optional<std::string> text, file;
  bool specials = false, json = false;
};

int train_tokenizer(const TokenizerArguments& arguments) {
  check(arguments.vocab_size > 0 && arguments.vocab_size < (int64_t{1} << 31),
        "[tokenizer] expected --vocab-size from 257 to 2^31 - 1, got ", arguments.vocab_size);
  const Corpus corpus = Corpus::open(arguments.data, arguments.kind);
  const std::string text = corpus.read(Split::Train);
  const auto tokenizer = train_bpe(text, static_cast<int32_t>(arguments.vocab_size));
  save_tokenizer(*tokenizer, arguments.out);
  print_row("text", corpus.file(Split::Train));
  print_row("entries", grouped(tokenizer->vocab_size()));
  if (const int64_t invalid = count_invalid_utf8(text); invalid > 0) {
    print_row("invalid bytes",
              grouped(invalid) + " (not UTF-8, " + fate_of_invalid(*tokenizer) + ")");
  }
  return 0;
}

std::string input_of(const TokenizerArguments& arguments) {
  check(arguments.text.has_value() != arguments.file.has_value(),
        "[tokenizer] expected one of --text and --file");
  return arguments.text ? *arguments.text : read_file(*arguments.file, kTextLimit, NamedBy::User);
}

int encode(const TokenizerArguments& arguments) {
  const std::string text = input_of(arguments);
  const auto tokenizer = load_tokenizer(arguments.tokenizer);
  const std::vector<int32_t> ids =
      arguments.specials ? tokenizer->encode_with_specials(text) : tokenizer->encode(text);
  if (const int64_t invalid = count_invalid_utf8(text); invalid > 0) {
    print_line(stderr, "invalid bytes: " + grouped(invalid) + " (not UTF-8, " +
                           fate_of_invalid(*tokenizer) + ")");
  }
  if (arguments.json) {
    print_json({{"ids", ids}}, -1);
    return 0;
  }
  std::string line;
  for (const int32_t id : ids) {
    char digits[16];
    const auto [end, error] = std::to_chars(digits, digits + sizeof digits, id);
    if (!line.empty()) line += ' ';
    line.append(digits, end);
  }
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stdout);
  return 0;
}

/// Ids as `encode` prints them, in either form: numbers between spaces, commas and brackets.
std::vector<int32_t> parse_ids(std::string_view text) {
  std::vector<int32_t> ids;
  if (const size_t key = text.find("\"ids\":"); key != std::string_view::npos) {
    text.remove_prefix(key + 6);
  }
  constexpr std::string_view kBetween = " \t\r\n,[]{}";
  for (size_t at = text.find_first_not_of(kBetween); at < text.size();) {
    int32_t id = 0;
    const auto [stop, error] = std::from_chars(text.data() + at, text.data() + text.size(), id);
    const size_t end = static_cast<size_t>(stop - text.data());
    check(error == std::errc() && (end == text.size() || kBetween.find(text[end]) != kBetween.npos),
          "[tokenizer] expected ids, got ", quoted(text.substr(at, 20)));
    ids.push_back(id);
    at = text.find_first_not_of(kBetween, end);
  }
  return ids;
}

int decode(const TokenizerArguments& arguments) {
  const std::vector<int32_t> ids = parse_ids(input_of(arguments));
  const std::string text = load_tokenizer(arguments.tokenizer)->decode(ids);
  if (arguments.json) {
    print_json({{"text", replace_invalid_utf8(text)}});
  } else {
    std::fwrite(text.data(), 1, text.size(), stdout);
  }
  return 0;
}

void add_input(CLI::App* command, const std::shared_ptr<TokenizerArguments>& arguments,
               const std::string& what) {
  add_text(*command, "--tokenizer", arguments->tokenizer, "tokenizer.json", "FILE")->required();
  add_text(*command, "--text", arguments->text, what + "; default: that of --file");
  add_text(*command, "--file", arguments->file, "a file that holds it; default: --text", "FILE");
  add_json(*command, arguments->json);
}

}  // namespace

void add_tokenizer(CLI::App& program, Action& action) {
  auto arguments = std::make_shared<TokenizerArguments>();
  CLI::App* command = program.add_subcommand("tokenizer", "Train a BPE, or use a tokenizer");
  command->require_subcommand(1);

  CLI::App* train = command->add_subcommand("train", "Learn a BPE from the train split");
  add_text(*train, "--data", arguments->data, "folder with a train file, or one file", "FILE")
      ->required();
  add_number(*train, "--vocab-size", arguments->vocab_size, "entries");
  add_text(*train, "--out", arguments->out, "tokenizer.json to write", "FILE")->required();
  add_kind(*train, arguments->kind);
  train->callback(
      [arguments, &action] { action = [arguments] { return train_tokenizer(*arguments); }; });

  CLI::App* to_ids = command->add_subcommand("encode", "Print the ids of a text");
  add_input(to_ids, arguments, "the text");
  to_ids->add_flag("--specials", arguments->specials,
                   "read special tokens such as <|endoftext|> where the text has them");
  to_ids->callback([arguments, &action] { action = [arguments] { return encode(*arguments); }; });

  CLI::App* to_text = command->add_subcommand("decode", "Print the text of ids");
  add_input(to_text, arguments, "the ids, as encode prints them");
  to_text->callback([arguments, &action] { action = [arguments] { return decode(*arguments); }; });
}

}  // namespace regla::app
