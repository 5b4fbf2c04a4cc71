#include "storage/json_fields.h"

#include <ctime>
#include <functional>

#include "tests/error_of.h"
#include "tests/matchers.h"

namespace regla::test {
namespace {

/// {"name0": <value>, "name1": ...}
std::string many_names(int count, const std::string& value) {
  std::string text = "{";
  for (int i = 0; i < count; ++i) {
    text += (i == 0 ? "\"name" : ",\"name") + std::to_string(i) + "\":" + value;
  }
  return text + "}";
}

/// Of this process alone, whatever else the machine does.
double seconds_of(const std::function<void()>& f) {
  const std::clock_t start = std::clock();
  f();
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

}  // namespace

TEST_CASE("JSON keeps its values and the order of its keys") {
  const std::string text =
      R"({"z":[1,-2,3.5,[],{}],"a":{"y":null,"x":true,"":"\n\"é"},"big":18446744073709551615})";
  CHECK(parse_json(text, "[it]").dump() == text);
  CHECK(parse_json(text, "[it]") == Json::parse(text));
  for (const char* single : {"3", "\"s\"", "null", "[]", "{}"}) {
    CHECK(parse_json(single, "[it]").dump() == single);
  }
}

TEST_CASE("JSON is read in time linear in the number of keys") {
  const std::string text = many_names(200000, "{\"a\":1}");
  CHECK(seconds_of([&] { CHECK(parse_json(text, "[it]").size() == 200000); }) < 3);
  const std::string twice = text.substr(0, text.size() - 1) + ",\"name7\":1}";
  CHECK(seconds_of([&] {
          CHECK_THAT(error_of([&] { parse_json(twice, "[it]"); }), Contains("\"name7\" is given"));
        }) < 3);
}

TEST_CASE("nesting has a limit, of objects and arrays alike") {
  const auto nested = [](size_t depth, const std::string& open, const std::string& close) {
    std::string text;
    for (size_t i = 0; i < depth; ++i) text += open;
    text += "1";
    for (size_t i = 0; i < depth; ++i) text += close;
    return text;
  };
  for (const auto& [open, close] : {std::pair("[", "]"), std::pair("{\"a\":", "}")}) {
    CHECK(parse_json(nested(64, open, close), "[it]").dump() == nested(64, open, close));
    for (const size_t depth : {size_t{65}, size_t{1000000}}) {
      CHECK_THAT(error_of([&] { parse_json(nested(depth, open, close), "[it]"); }),
                 Contains("[it] more than 64 levels of nesting"));
    }
  }
}

TEST_CASE("malformed JSON names its place") {
  const auto error = [](const std::string& text) {
    return error_of([&] { parse_json(text, "[it]"); });
  };
  CHECK_THAT(error("{\"a\":\n 1,}"), Contains("[it] malformed JSON at line 2, column 4"));
  CHECK_THAT(error("[1 2]"), Contains("malformed JSON at line 1, column 4"));
  CHECK_THAT(error("[1e999]"), Contains("a number that is out of range"));
  CHECK_THAT(error(""), Contains("malformed JSON"));
  CHECK_THAT(error("[\"\xff\"]"), Contains("malformed JSON"));
  CHECK_THAT(error("{\"a\":{\"b\":1,\"b\":2}}"), Contains("the key \"b\" is given twice"));
}

TEST_CASE("quoted text is printable, whatever its type") {
  std::string text = "a\033[31m\"\xff";
  CHECK(quoted(text) == "\"a\\u001b[31m\\\"\\ufffd\"");
  CHECK(quoted(std::string_view(text)) == quoted(text));
  CHECK(shown_key("a\nb") == "a\\nb");
}

}  // namespace regla::test
