#include "text/unicode.h"

#include "tests/catch.h"

using namespace regla;

TEST_CASE("bytes outside valid UTF-8 are counted one by one", "[text]") {
  CHECK(count_invalid_utf8("") == 0);
  CHECK(count_invalid_utf8("caf\xC3\xA9 \xF0\x9F\xA6\x99") == 0);
  CHECK(count_invalid_utf8("\xFF") == 1);
  CHECK(count_invalid_utf8("a\xE2\x82z") == 2);                 // cut short
  CHECK(count_invalid_utf8("\xC0\x80") == 2);                   // overlong
  CHECK(count_invalid_utf8("\xED\xA0\x80") == 3);               // a surrogate
  CHECK(count_invalid_utf8("\xF4\x90\x80\x80") == 4);           // above U+10FFFF
  CHECK(count_invalid_utf8("\x80\xC3\xA9\xC3") == 2);           // lone bytes around a good one
  CHECK(count_invalid_utf8(std::string_view("a\0b", 3)) == 0);  // NUL is a character
}

TEST_CASE("characters are classified by their Unicode category", "[text]") {
  CHECK(char_class('a') == CharClass::Letter);
  CHECK(char_class(0x4E2D) == CharClass::Letter);  // a Han character
  CHECK(char_class(0x2170) == CharClass::Number);  // small Roman numeral one: a letter number
  CHECK(char_class(0xB2) == CharClass::Number);    // superscript two
  CHECK(char_class(0xA0) == CharClass::Space);     // no-break space
  CHECK(char_class(0x85) == CharClass::Space);     // next line
  CHECK(char_class(0x3000) == CharClass::Space);
  CHECK(char_class(0x200B) == CharClass::Other);  // zero width space is no white space
  CHECK(char_class(0x301) == CharClass::Other);   // combining acute accent
  CHECK(char_class(-1) == CharClass::Other);
}

TEST_CASE("invalid bytes survive normalisation and can be replaced", "[text]") {
  CHECK(nfc("e\xCC\x81") == "\xC3\xA9");
  CHECK(nfc("e\xCC\x81\xFF"
            "e\xCC\x81") == "\xC3\xA9\xFF\xC3\xA9");
  CHECK(nfc("plain") == "plain");
  CHECK(nfc("") == "");
  CHECK(replace_invalid_utf8("a\xFF\xFE"
                             "b") ==
        "a\xEF\xBF\xBD\xEF\xBF\xBD"
        "b");
}

TEST_CASE("printable text holds nothing that moves a cursor or ends a line") {
  CHECK(printable("caf\xC3\xA9 \"a\\b\" \xF0\x9F\xA6\x99") ==
        "caf\xC3\xA9 \"a\\b\" \xF0\x9F\xA6\x99");
  CHECK(printable("a\033[2J\r\nb\tc\x7f") == "a\\u001b[2J\\u000d\\nb\\u0009c\\u007f");
  CHECK(printable("\xC2\x9B"
                  "31m") == "\\u009b31m");  // a terminal's other escape
  CHECK(printable("\xE2\x80\xAE"
                  "fdp.\xE2\x80\xA8") == "\\u202efdp.\\u2028");
  CHECK(printable("\xFF\x9B\xC2") == "\\xff\\x9b\\xc2");
  CHECK(printable(std::string_view("\0", 1)) == "\\u0000");
  CHECK(printable("a\n\033", "\n") == "a\n\\u001b");
  CHECK(printable(printable("\033\xFF\n")) == printable("\033\xFF\n"));
}

// As Python's str.capitalize.
TEST_CASE("a text is capitalized by Unicode's full mappings", "[text]") {
  CHECK(capitalized("") == "");
  CHECK(capitalized("aB cD") == "Ab cd");
  CHECK(capitalized("1AB") == "1ab");
  CHECK(capitalized("\u00e9COLE") == "\u00c9cole");
  CHECK(capitalized("\u00dftle") == "Sstle");
  CHECK(capitalized("\ufb01X") == "Fix");
  CHECK(capitalized("\u01c6A B\u03a3 \u03a3") == "\u01c5a b\u03c2 \u03c3");
  CHECK(capitalized("\u03a3\u0391\u03a3") == "\u03a3\u03b1\u03c2");
}
