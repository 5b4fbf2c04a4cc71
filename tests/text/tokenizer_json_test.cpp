#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/catch.h"
#include "tests/text/support.h"
#include "text/bpe_trainer.h"
#include "text/byte_tokenizer.h"
#include "text/tokenizer.h"

using namespace regla;
using nlohmann::json;
using Ids = std::vector<int32_t>;

namespace {

// The byte tokenizer as JSON, with "th" and "the" merged: what the malformed files start from.
json sample() {
  json file = json::parse(byte_tokenizer()->to_json());
  file["model"]["vocab"]["th"] = 257;
  file["model"]["vocab"]["the"] = 258;
  file["model"]["merges"] = {"t h", "th e"};
  return file;
}

std::string error_with(const std::string& pointer, const json& value) {
  json file = sample();
  file[json::json_pointer(pointer)] = value;
  const std::string error = test::error_of([&] { tokenizer_from_json(file.dump()); });
  CHECK(error.find('\n') == std::string::npos);
  return error;
}

}  // namespace

TEST_CASE("a tokenizer survives being written and read", "[text]") {
  const test::TextFolder folder;
  std::string text = test::random_bytes(2000, 9);
  for (int i = 0; i < 30; ++i) text += " some words, \"quoted\" \\ and others\t";
  const auto trained = train_bpe(text, 350);
  const std::string path = folder.path("tokenizer.json");
  save_tokenizer(*trained, path);
  const auto loaded = load_tokenizer(path);
  CHECK(loaded->to_json() == trained->to_json());
  CHECK(loaded->hash() == trained->hash());
  CHECK(loaded->end_of_text() == trained->end_of_text());
  CHECK(loaded->encode(text) == trained->encode(text));
}

TEST_CASE("the file has the form that Hugging Face's library reads", "[text]") {
  const json file = json::parse(train_bpe("low low low low", 260)->to_json());
  CHECK(file["model"]["type"] == "BPE");
  CHECK(file["model"]["vocab"]["\xC4\xA0"] == 32);  // the space is U+0120
  CHECK(file["model"]["vocab"]["!"] == 33);
  CHECK(file["model"]["vocab"]["\xC5\x83"] == 0xAD);  // the last byte to be moved, to U+0143
  CHECK(file["model"]["merges"][0] == "l o");
  CHECK(file["pre_tokenizer"]["type"] == "ByteLevel");
  CHECK(file["added_tokens"][0]["content"] == "<|endoftext|>");
  CHECK(file["added_tokens"][0]["special"] == true);
}

TEST_CASE("merges are read as strings and as pairs", "[text]") {
  CHECK(tokenizer_from_json(sample().dump())->encode("the") == Ids{258});
  json file = sample();
  file["model"]["merges"] = json::array({json::array({"t", "h"}), json::array({"th", "e"})});
  CHECK(tokenizer_from_json(file.dump())->encode("the") == Ids{258});
}

TEST_CASE("an end of text in the vocabulary alone is enough", "[text]") {
  json file = sample();
  file.erase("added_tokens");
  CHECK(tokenizer_from_json(file.dump())->end_of_text() == 256);
  file["model"]["vocab"].erase("<|endoftext|>");
  file["model"]["vocab"]["end"] = 256;
  CHECK_THROWS_AS(tokenizer_from_json(file.dump()), Error);
}

TEST_CASE("malformed tokenizers are refused in one line", "[text]") {
  for (const char* text : {"", "{", "[]", "null", "7", "\"x\"", "{}", "{\"model\": 1}", "\xFF{}"}) {
    CHECK_THROWS_AS(tokenizer_from_json(text), Error);
  }
  CHECK_THROWS_AS(tokenizer_from_json(std::string(1 << 20, '[')), Error);
  CHECK(error_with("/model/type", "Unigram") ==
        "[tokenizer] expected a BPE model, got \"Unigram\"");
  for (const char* path :
       {"/model/vocab", "/model/merges", "/added_tokens", "/pre_tokenizer", "/model/vocab/the",
        "/model/merges/0", "/normalizer", "/decoder", "/added_tokens/0", "/added_tokens/0/content",
        "/added_tokens/0/id", "/added_tokens/0/special", "/pre_tokenizer/use_regex"}) {
    CAPTURE(path);
    CHECK(error_with(path, 0.5).starts_with("[tokenizer] expected"));
    CHECK(error_with(path, json::array({1})).starts_with("[tokenizer] expected"));
    CHECK(error_with(path, "no such").starts_with("[tokenizer] expected"));
  }
  CHECK(error_with("/model/dropout", 0.1).starts_with("[tokenizer] expected no dropout"));
  CHECK(error_with("/model/ignore_merges", true) != "no error");
  CHECK(error_with("/model/byte_fallback", true) != "no error");
  CHECK(error_with("/added_tokens/0/lstrip", true) != "no error");
  CHECK(error_with("/pre_tokenizer/add_prefix_space", true) != "no error");
}

TEST_CASE("a post-processor that adds no tokens is accepted", "[text]") {
  const json alone = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}};
  const json pairs = {{"type", "TemplateProcessing"},
                      {"single", {alone}},
                      {"pair", {alone, {{"Sequence", {{"id", "B"}, {"type_id", 1}}}}}},
                      {"special_tokens", json::object()}};
  const json sequence = {{"type", "Sequence"}, {"processors", {byte_level, pairs}}};
  for (const json& part : {json(), byte_level, pairs, sequence}) {
    CAPTURE(part.dump());
    json file = sample();
    file["post_processor"] = part;
    CHECK(tokenizer_from_json(file.dump())->encode_with_specials("the") == Ids{258});
  }
}

TEST_CASE("a post-processor that adds tokens is refused by name", "[text]") {
  const json alone = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const json other = {{"Sequence", {{"id", "B"}, {"type_id", 0}}}};
  const json end = {{"SpecialToken", {{"id", "<|endoftext|>"}, {"type_id", 0}}}};
  const auto of_template = [](const json& single) {
    return json{{"type", "TemplateProcessing"}, {"single", single}, {"pair", json::array()}};
  };
  const json ends = {"<|endoftext|>", 256};
  const std::string start = "[tokenizer] expected a post_processor that adds no tokens, got ";
  for (const json& single : {json{end, alone}, json{alone, end}, json{end}, json::array(),
                             json{alone, alone}, json{other}, json("$A"), json{"A"}}) {
    CAPTURE(single.dump());
    for (const json& part :
         {of_template(single), json{{"type", "Sequence"}, {"processors", {of_template(single)}}}}) {
      CHECK(error_with("/post_processor", part).starts_with(start + "\"TemplateProcessing\""));
    }
  }
  for (const char* kind : {"BertProcessing", "RobertaProcessing", "NoSuch"}) {
    CAPTURE(kind);
    const json part = {{"type", kind}, {"sep", ends}, {"cls", ends}, {"trim_offsets", true}};
    CHECK(error_with("/post_processor", part) == start + json(kind).dump());
    CHECK(error_with("/post_processor", {{"type", "Sequence"}, {"processors", {part}}}) ==
          start + json(kind).dump());
  }
  for (const json& part : {json(1), json::array(), json::object(), json{{"type", nullptr}},
                           json{{"type", "Sequence"}, {"processors", {{"x", 1}}}}}) {
    CAPTURE(part.dump());
    CHECK(error_with("/post_processor", part).starts_with("[tokenizer] expected"));
  }
}

TEST_CASE("every setting is followed or refused by name", "[text]") {
  const std::vector<std::pair<std::string, json>> refused = {
      {"/truncation", {{"max_length", 2}, {"strategy", "LongestFirst"}}},
      {"/padding", {{"strategy", {{"Fixed", 6}}}, {"pad_id", 0}}},
      {"/something_new", true},
      {"/version", "2.0"},
      {"/normalizer", {{"type", "NFKC"}}},
      {"/normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "Lowercase"}}}}}},
      {"/normalizer", {{"normalizers", {{{"type", "Lowercase"}}}}}},
      {"/normalizer", {{"type", "NFC"}, {"form", 1}}},
      {"/normalizer", json::object()},
      {"/pre_tokenizer", nullptr},
      {"/pre_tokenizer/individual_digits", true},
      {"/pre_tokenizer/trim_offsets", 1},
      {"/decoder", json::object()},
      {"/decoder", {{"type", "ByteFallback"}}},
      {"/decoder/prefix", "x"},
      {"/model/dropout", 0.1},
      {"/model/dropout", ""},
      {"/model/unk_token", 7},
      {"/model/fuse_unk", 7},
      {"/model/byte_fallback", true},
      {"/model/ignore_merges", true},
      {"/model/continuing_subword_prefix", "##"},
      {"/model/continuing_subword_prefix", 0.0},
      {"/model/end_of_word_suffix", "</w>"},
      {"/model/something_new", 1},
      {"/added_tokens/0/lstrip", true},
      {"/added_tokens/0/rstrip", true},
      {"/added_tokens/0/single_word", true},
      {"/added_tokens/0/something_new", 1}};
  for (const auto& [path, value] : refused) {
    CAPTURE(path, value.dump());
    const std::string error = error_with(path, value);
    const std::string name = path.substr(path.rfind('/') + 1);
    CHECK(error.starts_with("[tokenizer] expected"));
    CHECK(error.find(name) != std::string::npos);
  }
  for (const auto& [path, value] : std::vector<std::pair<std::string, json>>{
           {"/model/unk_token", "<|endoftext|>"},  // every byte has a token, so nothing is unknown
           {"/model/fuse_unk", true},
           {"/model/dropout", 0.0},
           {"/model/continuing_subword_prefix", ""},
           {"/model/something_new", nullptr},
           {"/decoder", nullptr},
           {"/pre_tokenizer/trim_offsets", false}}) {
    CAPTURE(path, value.dump());
    json file = sample();
    file[json::json_pointer(path)] = value;
    CHECK(tokenizer_from_json(file.dump())->encode("the e") == Ids{258, ' ', 'e'});
  }
}

TEST_CASE("added tokens get the ids that Hugging Face's library gives", "[text]") {
  json file = sample();
  const auto token = [](int id, const char* content, bool special) {
    return json{{"id", id}, {"content", content}, {"special", special}, {"normalized", !special}};
  };
  file["added_tokens"] = {token(259, "<a>", false), token(256, "<|endoftext|>", false),
                          token(260, "cafe\xCC\x81", false)};
  file["normalizer"] = {{"type", "NFC"}};
  const auto tokenizer = tokenizer_from_json(file.dump());
  CHECK(tokenizer->encode("<a>the") == Ids{259, 258});
  // What is looked for in the normalised text is normalised too.
  CHECK(tokenizer->encode("cafe\xCC\x81!") == Ids{260, '!'});
  CHECK(tokenizer->encode("caf\xC3\xA9!") == Ids{260, '!'});
  CHECK(tokenizer->decode(Ids{260}) == "cafe\xCC\x81");
  // The end of a document stands in no text, even where the file calls it an ordinary token.
  const Ids plain = tokenizer->encode("<|endoftext|>");
  CHECK(std::count(plain.begin(), plain.end(), 256) == 0);
  CHECK(tokenizer->encode_with_specials("<|endoftext|>") == Ids{256});
  CHECK(tokenizer_from_json(tokenizer->to_json())->encode("caf\xC3\xA9") == Ids{260});

  file["added_tokens"] = {token(260, "<b>", false), token(259, "<a>", false)};
  CHECK(test::error_of([&] {
          tokenizer_from_json(file.dump());
        }).find("got 260 for \"<b>\" where 259 is next") != std::string::npos);
  file["added_tokens"] = {token(259, "<a>", false), token(259, "<a>", true)};
  CHECK(test::error_of([&] { tokenizer_from_json(file.dump()); }) ==
        "[tokenizer] expected each added token once, got \"<a>\" twice");
}

TEST_CASE("ids must be 0 to n - 1, each once", "[text]") {
  CHECK(error_with("/model/vocab/the", 257) != "no error");
  CHECK(error_with("/model/vocab/the", -1) != "no error");
  CHECK(error_with("/model/vocab/the", 300) != "no error");
  CHECK(error_with("/model/vocab/the", 2147483647) != "no error");
  CHECK(error_with("/model/vocab/the", 18446744073709551615ULL) != "no error");
  CHECK(error_with("/added_tokens/0/id", 12) != "no error");
  CHECK(error_with("/added_tokens/0/content", "") != "no error");
  CHECK(error_with("/model/vocab/ ", 259) ==
        "[tokenizer] expected tokens in the byte-level alphabet, got \" \"");
}

TEST_CASE("merges must name known tokens", "[text]") {
  CHECK(error_with("/model/merges/0", "t zz") ==
        "[tokenizer] expected merges of known tokens, got \"zz\" in merge 0");
  CHECK(error_with("/model/merges/0", "t e") != "no error");  // "te" is no token
  CHECK(error_with("/model/merges/0", "th") != "no error");
  CHECK(error_with("/model/merges/0", " t h") != "no error");
  CHECK(error_with("/model/merges/0", "th e") != "no error");  // twice
  CHECK(error_with("/model/merges/0", json::array({"t"})) != "no error");
}

TEST_CASE("errors of a file name it", "[text]") {
  const test::TextFolder folder;
  const std::string path = folder.add("tokenizer.json", "{\"model\": {}}");
  CHECK(test::error_of([&] { load_tokenizer(path); }).find(path) != std::string::npos);
  CHECK(test::error_of([&] { load_tokenizer(folder.path("none")); }).find("none") !=
        std::string::npos);
  CHECK_THROWS_AS(save_tokenizer(*byte_tokenizer(), folder.path("no/such/folder.json")), Error);
}
