#include "scoring/few_shot.h"

#include "tests/matchers.h"
#include "tests/scoring/support.h"

namespace regla {
namespace {

/// PIQA's documents with these goals; each is an example that is told by its goal.
std::string goals(const std::string& letters) {
  std::string text;
  for (const char letter : letters) {
    text += R"({"goal": ")" + std::string(1, letter) +
            R"(", "sol1": "x", "sol2": "y", "label": 0})" + "\n";
  }
  return text;
}

/// The goals of the examples that stand in front of each document.
std::vector<std::string> drawn(const TaskData& data, int64_t shots) {
  FewShot few_shot(data, shots);
  std::vector<std::string> all;
  for (const TaskDocument& document : data.documents) {
    std::string letters;
    const std::string examples = few_shot.next(document);
    for (size_t at = 0; at < examples.size();
         at += std::string("Question: a\nAnswer: x\n\n").size()) {
      letters += examples.at(at + 10);
    }
    all.push_back(letters);
  }
  return all;
}

using Letters = std::vector<std::string>;

}  // namespace

// The letters are what Python's Random(1234).sample gives one call after the other, without the
// document's own.
TEST_CASE("examples are drawn from the other documents, one draw going on from the other") {
  CHECK(drawn(test::opened("piqa", "valid.jsonl", goals("abcd")), 2) ==
        Letters{"dc", "ac", "ad", "ba"});
  CHECK(drawn(test::opened("piqa", "valid.jsonl", goals("abcd")), 0) == Letters{"", "", "", ""});
}

TEST_CASE("a training split is the pool, and one more than asked for is drawn all the same") {
  CHECK(drawn(test::opened("piqa", "valid.jsonl", goals("abcd"), goals("efghi")), 2) ==
        Letters{"he", "ei", "ei", "fe"});
}

TEST_CASE("where a document came twice, it is drawn again from what differs") {
  CHECK(drawn(test::opened("piqa", "valid.jsonl", goals("aabc")), 2) ==
        Letters{"cb", "bc", "ac", "aa"});
}

TEST_CASE("more shots than the pool holds are refused") {
  const TaskData data = test::opened("piqa", "valid.jsonl", goals("abcd"));
  CHECK_NOTHROW(FewShot(data, 3));
  CHECK_THROWS_WITH(FewShot(data, 4), Contains("at most 3 shots") && Contains("valid.jsonl"));
  const TaskData twice = test::opened("piqa", "valid.jsonl", goals("aab"));
  CHECK_THROWS_WITH(drawn(twice, 2), Contains("at most 1 shots"));
  const TaskData lambada = test::opened("lambada", "test.jsonl", "{\"text\": \"a b\"}\n");
  CHECK(FewShot(lambada, 1).next(lambada.documents[0]) == "a  b\n\n");  // itself
  CHECK_THROWS_WITH(FewShot(lambada, 2), Contains("at most 1 shots"));
}

TEST_CASE("a task with examples of its own draws none") {
  const TaskData data = test::opened("truthfulqa_mc1", "validation.jsonl",
                                     R"({"question": "q", "mc1_targets": {"a": 1, "b": 0}})");
  FewShot few_shot(data, 5);
  CHECK(few_shot.shots() == 0);
  CHECK(few_shot.next(data.documents[0]).empty());
}

}  // namespace regla
