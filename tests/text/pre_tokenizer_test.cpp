#include "text/pre_tokenizer.h"

#include <string>
#include <vector>

#include "tests/catch.h"
#include "tests/text/support.h"

using namespace regla;

namespace {

using Words = std::vector<std::string>;

Words words(std::string_view text) {
  Words out;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = word_end(text, begin);
    REQUIRE(end > begin);
    out.emplace_back(text.substr(begin, end - begin));
    begin = end;
  }
  return out;
}

}  // namespace

TEST_CASE("words are those of GPT-2's pattern", "[text]") {
  CHECK(words("").empty());
  CHECK(words("Hello world") == Words{"Hello", " world"});
  CHECK(words("a1b2 33x") == Words{"a", "1", "b", "2", " 33", "x"});
  CHECK(words("end. (Next)") == Words{"end", ".", " (", "Next", ")"});
  CHECK(words("<unk> @-@ =") == Words{"<", "unk", ">", " @-@", " ="});
}

TEST_CASE("contractions are words of their own where a word could begin", "[text]") {
  CHECK(words("I've he'll we're") == Words{"I", "'ve", " he", "'ll", " we", "'re"});
  CHECK(words("it's I'm I'd can't") == Words{"it", "'s", " I", "'m", " I", "'d", " can", "'t"});
  CHECK(words("y'all") == Words{"y", "'", "all"});
  CHECK(words("I'VE") == Words{"I", "'", "VE"});
  CHECK(words("'sup") == Words{"'s", "up"});
  CHECK(words("a 's") == Words{"a", " '", "s"});  // the space takes the apostrophe
  CHECK(words("!'s") == Words{"!'", "s"});
  CHECK(words("''s") == Words{"''", "s"});
  CHECK(words("'") == Words{"'"});
  CHECK(words("'r 'l") == Words{"'", "r", " '", "l"});
}

TEST_CASE("a run of white space leaves its last character to the next word", "[text]") {
  CHECK(words("a  b") == Words{"a", " ", " b"});
  CHECK(words("a   b") == Words{"a", "  ", " b"});
  CHECK(words("a\n\nb") == Words{"a", "\n", "\n", "b"});
  CHECK(words("a\nb") == Words{"a", "\n", "b"});
  CHECK(words("a \nb") == Words{"a", " ", "\n", "b"});
  CHECK(words("a \n") == Words{"a", " \n"});
  CHECK(words("   ") == Words{"   "});
  CHECK(words(" ") == Words{" "});
  CHECK(words("\n = T = \n") == Words{"\n", " =", " T", " =", " \n"});
  CHECK(words("a\xC2\xA0"
              "b") == Words{"a", "\xC2\xA0", "b"});
}

TEST_CASE("letters and numbers of all scripts count", "[text]") {
  CHECK(words("caf\xC3\xA9s") == Words{"caf\xC3\xA9s"});
  CHECK(words("\xD0\xBD\xD0\xB5 \xE4\xB8\xAD\xC2\xB2") ==
        Words{"\xD0\xBD\xD0\xB5", " \xE4\xB8\xAD", "\xC2\xB2"});
}

TEST_CASE("invalid bytes join the other characters", "[text]") {
  CHECK(words("a\xFF\xFE!b") == Words{"a", "\xFF\xFE!", "b"});
  CHECK(words(" \xC3") == Words{" \xC3"});
  const std::string bytes = test::random_bytes(20000, 1);
  std::string joined;
  for (const std::string& word : words(bytes)) joined += word;
  CHECK(joined == bytes);
}
