#include <algorithm>
#include <array>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "core/check.h"
#include "storage/files.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

// tokenizer.json writes the bytes of a token as characters: bytes that are visible in Latin-1
// stand for themselves, the others for U+0100 onwards in ascending order.
namespace regla {
namespace {

using nlohmann::json;

constexpr uint64_t kSizeLimit = uint64_t{1}
                                << 28;  // bytes; a vocabulary of 256,000 takes 35 million
constexpr int32_t kAlphabetEnd = 0x100 + 68;

constexpr std::array<int32_t, 256> make_byte_characters() {
  std::array<int32_t, 256> characters{};
  int32_t next = 0x100;
  for (int32_t byte = 0; byte < 256; ++byte) {
    const bool visible = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    characters[static_cast<size_t>(byte)] = visible ? byte : next++;
  }
  return characters;
}
constexpr std::array<int32_t, 256> kByteCharacters = make_byte_characters();

// The characters of the alphabet are below U+0800: one or two bytes of UTF-8.
std::string spell(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) {
    const int32_t code = kByteCharacters[static_cast<unsigned char>(byte)];
    if (code < 0x80) {
      out.push_back(static_cast<char>(code));
    } else {
      out.push_back(static_cast<char>(0xC0 | (code >> 6)));
      out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
    }
  }
  return out;
}

// A JSON string; `shorten` for error messages, which also keeps them on one line.
std::string quote(std::string_view text) { return json(text).dump(); }
std::string shorten(std::string_view text) {
  const std::string head(text.substr(0, 40));
  return json(head).dump(-1, ' ', true, json::error_handler_t::replace);
}

// The bytes that a name in the vocabulary spells.
std::string unspell(std::string_view name) {
  static const std::array<int16_t, kAlphabetEnd> kBytes = [] {
    std::array<int16_t, kAlphabetEnd> bytes;
    bytes.fill(-1);
    for (int16_t byte = 0; byte < 256; ++byte) {
      bytes[static_cast<size_t>(kByteCharacters[static_cast<size_t>(byte)])] = byte;
    }
    return bytes;
  }();
  std::string out;
  for (size_t at = 0; at < name.size();) {
    const Utf8Char c = utf8_char(name, at);
    const bool known =
        c.code >= 0 && c.code < kAlphabetEnd && kBytes[static_cast<size_t>(c.code)] >= 0;
    check(known, "[tokenizer] expected tokens in the byte-level alphabet, got ", shorten(name));
    out.push_back(static_cast<char>(kBytes[static_cast<size_t>(c.code)]));
    at += c.bytes;
  }
  return out;
}

// A member of an object, or null where it is absent.
const json& member(const json& object, const char* key) {
  static const json kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

const std::string& text_of(const json& value, const char* what) {
  check(value.is_string(), "[tokenizer] expected ", what, " to be a string, got ",
        value.type_name());
  return value.get_ref<const std::string&>();
}

int32_t id_of(const json& value, std::string_view token) {
  constexpr uint64_t kMost = 0x7FFFFFFF;
  check(value.is_number_unsigned() && value.get<uint64_t>() <= kMost,
        "[tokenizer] expected an id of 31 bits for ", shorten(token), ", got another value");
  return static_cast<int32_t>(value.get<uint64_t>());
}

bool flag(const json& object, const char* key, bool otherwise) {
  const json& value = member(object, key);
  if (value.is_null()) return otherwise;
  check(value.is_boolean(), "[tokenizer] expected ", key, " to be true or false, got ",
        value.type_name());
  return value.get<bool>();
}

// Every part of the file passes through here, so that a setting that this reader does not follow
// is never passed over. Settings that are null are as good as absent.
void expect_only(const json& part, std::initializer_list<std::string_view> known,
                 const char* what) {
  check(part.is_object(), "[tokenizer] expected ", what, " to be an object, got ",
        part.type_name());
  for (const auto& [key, value] : part.items()) {
    check(value.is_null() || std::find(known.begin(), known.end(), key) != known.end(),
          "[tokenizer] expected no ", shorten(key), " in ", what, ", got one");
  }
}

std::string type_of(const json& part, const char* what) {
  check(part.is_object(), "[tokenizer] expected ", what, " to be an object, got ",
        part.type_name());
  return text_of(member(part, "type"), what);
}

// Checks the settings that normalizer, pre_tokenizer, decoder and post_processor of the kind
// ByteLevel share. Where offsets are trimmed changes no id.
void check_byte_level(const json& part, const char* what) {
  expect_only(part, {"type", "add_prefix_space", "trim_offsets", "use_regex"}, what);
  for (const char* key : {"add_prefix_space", "trim_offsets", "use_regex"}) flag(part, key, true);
}

// A post-processor puts tokens around a text. Training and prompts take the ids of a text alone, so
// only those that add nothing are accepted.
void check_adds_nothing(const json& part) {
  constexpr const char* kWhat = "post_processor";
  const std::string kind = type_of(part, kWhat);
  if (kind == "ByteLevel") return check_byte_level(part, kWhat);
  const char* list = kind == "Sequence" ? "processors" : "single";
  const json& steps = member(part, list);
  check((kind == "Sequence" || kind == "TemplateProcessing") && steps.is_array(),
        "[tokenizer] expected a post_processor that adds no tokens, got ", shorten(kind));
  if (kind == "Sequence") {
    expect_only(part, {"type", "processors"}, kWhat);
    for (const json& step : steps) check_adds_nothing(step);
    return;
  }
  // `pair` and its tokens are for two texts at once.
  expect_only(part, {"type", "single", "pair", "special_tokens"}, kWhat);
  const bool text_alone = steps.size() == 1 && steps[0].is_object() && steps[0].size() == 1 &&
                          member(steps[0], "Sequence").is_object() &&
                          member(steps[0]["Sequence"], "id") == "A";
  check(text_alone, "[tokenizer] expected a post_processor that adds no tokens, got ",
        shorten(kind), " with more than the text in \"single\"");
}

// Builds the parts of a tokenizer from the parsed file, which outlives it.
class Reader {
 public:
  explicit Reader(const json& root) : root_(root), model_(member(root, "model")) {}

  TokenizerParts read() {
    read_settings();
    read_ids();
    read_tokens();
    read_merges();
    return std::move(parts_);
  }

 private:
  void read_settings() {
    expect_only(root_,
                {"version", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
                 "decoder", "model"},
                "the file");
    const json& version = member(root_, "version");
    check(version.is_null() || version == "1.0", "[tokenizer] expected version 1.0, got another");
    read_model_settings();
    read_normalizer(member(root_, "normalizer"));
    read_pre_tokenizer(member(root_, "pre_tokenizer"));
    const json& after = member(root_, "post_processor");
    if (!after.is_null()) check_adds_nothing(after);
    const json& decoder = member(root_, "decoder");
    if (decoder.is_null()) return;
    const std::string kind = type_of(decoder, "decoder");
    check(kind == "ByteLevel", "[tokenizer] expected a ByteLevel decoder, got ", shorten(kind));
    check_byte_level(decoder, "decoder");
  }

  void read_model_settings() {
    expect_only(model_,
                {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
                 "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"},
                "\"model\"");
    const json& type = member(model_, "type");
    check(type.is_null() || text_of(type, "model") == "BPE",
          "[tokenizer] expected a BPE model, got ",
          shorten(type.is_null() ? "" : type.get<std::string>()));
    const json& dropout = member(model_, "dropout");
    check(dropout.is_null() || (dropout.is_number() && dropout == 0.0),
          "[tokenizer] expected no dropout, got one");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const json& value = member(model_, key);
      check(value.is_null() || value == "", "[tokenizer] expected no ", key, ", got one");
    }
    for (const char* key : {"byte_fallback", "ignore_merges"}) {
      check(!flag(model_, key, false), "[tokenizer] expected ", key, " to be false, got true");
    }
    // Every byte of UTF-8 has a token (Bpe checks it), so that nothing in a text is unknown.
    flag(model_, "fuse_unk", false);
    const json& unknown = member(model_, "unk_token");
    if (!unknown.is_null()) text_of(unknown, "unk_token");
  }

  void read_normalizer(const json& part) {
    if (part.is_null()) return;
    const std::string kind = type_of(part, "normalizer");
    check(kind == "NFC", "[tokenizer] expected NFC or no normalizer, got ", shorten(kind));
    expect_only(part, {"type"}, "normalizer");
    parts_.normalize = true;
  }

  void read_pre_tokenizer(const json& part) {
    check(!part.is_null(), "[tokenizer] expected a ByteLevel pre_tokenizer, got none");
    const std::string kind = type_of(part, "pre_tokenizer");
    check(kind == "ByteLevel", "[tokenizer] expected a ByteLevel pre_tokenizer, got ",
          shorten(kind));
    check_byte_level(part, "pre_tokenizer");
    check(!flag(part, "add_prefix_space", true),
          "[tokenizer] expected add_prefix_space to be false, got true");
    parts_.split_words = flag(part, "use_regex", true);
  }

  void add_id(std::string_view name, int32_t id) {
    check(!name.empty(), "[tokenizer] expected tokens that are not empty, got id ", id);
    const auto [entry, is_new] = ids_.emplace(name, id);
    check(is_new || entry->second == id, "[tokenizer] expected one id for ", shorten(name),
          ", got ", entry->second, " and ", id);
  }

  void read_added(const json& entry) {
    expect_only(entry,
                {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"},
                "added_tokens");
    AddedToken token;
    token.content = text_of(member(entry, "content"), "the content of an added token");
    token.id = id_of(member(entry, "id"), token.content);
    // Texts never hold the end of a document, whatever the file says.
    token.special = flag(entry, "special", false) || token.content == kEndOfText;
    token.normalized = flag(entry, "normalized", !token.special);
    for (const char* key : {"single_word", "lstrip", "rstrip"}) {
      check(!flag(entry, key, false), "[tokenizer] expected ", key, " of ", shorten(token.content),
            " to be false, got true");
    }
    // Hugging Face's library numbers those that the vocabulary lacks itself.
    const bool in_vocabulary = ids_.contains(token.content);
    check(
        in_vocabulary || static_cast<size_t>(token.id) == ids_.size(),
        "[tokenizer] expected added tokens in the order of their ids behind the vocabulary's, got ",
        token.id, " for ", shorten(token.content), " where ", ids_.size(), " is next");
    add_id(member(entry, "content").get_ref<const std::string&>(), token.id);
    check(added_.insert(token.id).second, "[tokenizer] expected each added token once, got ",
          shorten(token.content), " twice");
    parts_.added.push_back(std::move(token));
  }

  void read_ids() {
    const json& vocabulary = member(model_, "vocab");
    check(vocabulary.is_object(), "[tokenizer] expected an object \"vocab\", got ",
          vocabulary.type_name());
    for (const auto& [name, id] : vocabulary.items()) add_id(name, id_of(id, name));
    const json& added = member(root_, "added_tokens");
    check(added.is_null() || added.is_array(), "[tokenizer] expected an array added_tokens, got ",
          added.type_name());
    if (added.is_array()) {
      for (const json& entry : added) read_added(entry);
    }
    const auto end = ids_.find(kEndOfText);
    check(end != ids_.end(), "[tokenizer] expected a token ", kEndOfText, ", got none");
    for (const AddedToken& token : parts_.added) {
      if (token.content == kEndOfText) return;
    }
    parts_.added.push_back({std::string(kEndOfText), end->second, true, false});
  }

  void read_tokens() {
    const size_t count = ids_.size();
    std::vector<std::string_view> names(count);
    for (const auto& [name, id] : ids_) {
      const auto i = static_cast<size_t>(id);
      check(i < count && names[i].empty(), "[tokenizer] expected each id from 0 to ", count - 1,
            " once, got ", id, " for ", shorten(name));
      names[i] = name;
    }
    std::vector<bool> verbatim(count);
    for (const AddedToken& token : parts_.added) verbatim[static_cast<size_t>(token.id)] = true;
    parts_.tokens.resize(count);
    for (size_t i = 0; i < count; ++i) {
      parts_.tokens[i] = verbatim[i] ? std::string(names[i]) : unspell(names[i]);
    }
    for (size_t byte = 0; byte < 256; ++byte) {
      const auto found = ids_.find(spell(std::string(1, static_cast<char>(byte))));
      parts_.byte_ids[byte] = found == ids_.end() ? -1 : found->second;
    }
  }

  // Halves hold no space: in the byte-level alphabet a space is another character.
  static std::pair<std::string, std::string> halves(const json& merge) {
    if (merge.is_array()) {
      check(merge.size() == 2, "[tokenizer] expected merges of two tokens, got ", merge.size());
      return {text_of(merge[0], "a merge's half"), text_of(merge[1], "a merge's half")};
    }
    const std::string& both = text_of(merge, "a merge");
    const size_t space = both.find(' ');
    check(space != std::string::npos, "[tokenizer] expected a merge of two tokens, got ",
          shorten(both));
    return {both.substr(0, space), both.substr(space + 1)};
  }

  void read_merges() {
    const json& merges = member(model_, "merges");
    check(merges.is_array(), "[tokenizer] expected an array \"merges\", got ", merges.type_name());
    parts_.merges.reserve(merges.size());
    for (const json& merge : merges) {
      const auto [left, right] = halves(merge);
      const auto known = [&](const std::string& name) {
        const auto found = ids_.find(name);
        check(found != ids_.end() && name.find(' ') == std::string::npos,
              "[tokenizer] expected merges of known tokens, got ", shorten(name), " in merge ",
              parts_.merges.size());
        return found->second;
      };
      parts_.merges.push_back({known(left), known(right), known(left + right)});
    }
  }

  const json& root_;
  const json& model_;
  std::unordered_map<std::string_view, int32_t> ids_;  // names as the file writes them
  std::unordered_set<int32_t> added_;
  TokenizerParts parts_;
};

const char* word_for(bool value) { return value ? "true" : "false"; }

}  // namespace

std::unique_ptr<Tokenizer> tokenizer_from_json(std::string_view text) {
  const json root = json::parse(text.begin(), text.end(), nullptr, false);
  check(!root.is_discarded(), "[tokenizer] expected JSON, got text that is not");
  check(root.is_object(), "[tokenizer] expected a JSON object, got ", root.type_name());
  return std::make_unique<Tokenizer>(Reader(root).read());
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path) {
  const std::string text = read_file(path, kSizeLimit);
  try {
    return tokenizer_from_json(text);
  } catch (const Error& error) {
    fail(error.what(), " (in ", path, ")");
  }
}

// Written by hand, one entry a line in the order of the ids: a JSON library would sort by name.
std::string Tokenizer::to_json() const {
  std::vector<std::string> names;
  names.reserve(parts_.tokens.size());
  for (const std::string& token : parts_.tokens) names.push_back(spell(token));
  for (const AddedToken& token : parts_.added) {
    names[static_cast<size_t>(token.id)] = token.content;
  }
  std::string out = "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n";
  out += "  \"added_tokens\": [";
  const char* separator = "";
  for (const AddedToken& token : parts_.added) {
    out += std::string(separator) + "\n    {\"id\": " + std::to_string(token.id) +
           ", \"content\": " + quote(token.content) +
           ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": " +
           word_for(token.normalized) + ", \"special\": " + word_for(token.special) + "}";
    separator = ",";
  }
  const std::string byte_level =
      "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, "
      "\"use_regex\": " +
      std::string(word_for(parts_.split_words)) + "}";
  out += "\n  ],\n  \"normalizer\": ";
  out += parts_.normalize ? "{\"type\": \"NFC\"}" : "null";
  out += ",\n  \"pre_tokenizer\": " + byte_level + ",\n  \"post_processor\": null,\n";
  out += "  \"decoder\": " + byte_level + ",\n  \"model\": {\n    \"type\": \"BPE\",\n";
  out += "    \"dropout\": null,\n    \"unk_token\": null,\n";
  out += "    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n";
  out += "    \"fuse_unk\": false,\n    \"vocab\": {";
  for (size_t id = 0; id < names.size(); ++id) {
    out += (id == 0 ? "\n      " : ",\n      ") + quote(names[id]) + ": " + std::to_string(id);
  }
  out += "\n    },\n    \"merges\": [";
  separator = "\n      ";
  for (const Merge& merge : parts_.merges) {
    const auto name = [&](int32_t id) { return names[static_cast<size_t>(id)]; };
    out += separator + quote(name(merge.left) + " " + name(merge.right));
    separator = ",\n      ";
  }
  out += "\n    ]\n  }\n}\n";
  return out;
}

void save_tokenizer(const Tokenizer& tokenizer, const std::string& path) {
  write_file(path, tokenizer.to_json(), NamedBy::User);
}

}  // namespace regla
