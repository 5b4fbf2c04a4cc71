// What the readers make of documents; tests/scoring/harness_comparison.py compares with the
// harness itself.

#include <cstdlib>

#include "scoring/python_text.h"
#include "tests/matchers.h"
#include "tests/scoring/support.h"

namespace regla {
namespace {

using test::documents;
using Texts = std::vector<std::string>;

/// The only document of a file.
TaskDocument only(const std::string& task, const std::string& text,
                  const std::string& name = "x.jsonl") {
  const std::vector<TaskDocument> all = documents(task, name, text);
  REQUIRE(all.size() == 1);
  return all[0];
}

/// What is wrong with the second line of a file.
void check_refused(const std::string& task, const std::string& good, const std::string& bad,
                   const std::string& blames) {
  CAPTURE(task, bad);
  CHECK_THROWS_WITH(documents(task, "some/x.jsonl", good + "\n" + bad + "\n"),
                    Contains("[eval] some/x.jsonl, line 2: ") && Contains(blames));
}

const char* const kPiqa = R"({"goal": "g", "sol1": "a", "sol2": "bc ", "label": 1})";
const char* const kSwag = R"({"query": "q [x]", "endings": ["a", "b  c"], "label": "1"})";
const char* const kWino = R"({"sentence": "A _ is b. ", "option1": "x", "option2": "yz",
    "answer": "2"})";
const char* const kTrue = R"({"question": "q", "mc1_targets": {"Yes.": 1, "No.": 0},
    "mc2_targets": {"A": 0, "B": 1, "C": 1}})";

std::string one_line(std::string text) { return replaced(text, "\n", ""); }

}  // namespace

TEST_CASE("Python's white space, characters and words are counted as it does") {
  CHECK(stripped("\u3000\x1f a\u00a0b\u2003\x85 ") == "a\u00a0b\u2003\x85");  // a lone byte is none
  CHECK(right_stripped("a\u200b\u0085\t") == "a\u200b");
  CHECK(left_stripped(" \n").empty());
  CHECK(count_characters("h\u00e9 \U0001f600") == 4);
  CHECK(count_split_words("") == 1);
  CHECK(count_split_words(" a\u00a0\n b ") == 4);
  CHECK(replaced("aaa b", "aa", "x") == "xa b");
}

TEST_CASE("BoolQ reads both forms, and puts the title where SuperGLUE has it") {
  const TaskDocument published =
      only("boolq", R"({"question": "is it", "title": "T", "answer": true, "passage": "P"})");
  CHECK(published.contexts == Texts{"T -- P\nQuestion: is it?\nAnswer:"});
  CHECK(published.continuations == Texts{" no", " yes"});
  CHECK(published.gold == 1);
  CHECK(published.example == "T -- P\nQuestion: is it?\nAnswer: yes\n\n");
  const TaskDocument library =
      only("boolq", R"([{"question": "is it", "passage": "T -- P", "idx": 0, "label": 1}])");
  CHECK(library.contexts == published.contexts);
  CHECK(library.gold == 1);
  CHECK(library.fields != published.fields);
}

TEST_CASE("PIQA has its labels in the documents or in a file beside them") {
  const TaskDocument document = only("piqa", kPiqa);
  CHECK(document.contexts == Texts{"Question: g\nAnswer:"});
  CHECK(document.continuations == Texts{" a", " bc "});
  CHECK(document.characters == std::vector<int64_t>{1, 3});
  CHECK(document.example == "Question: g\nAnswer: bc \n\n");
  const TemporaryFolder folder;
  const std::string text = R"({"goal": "g", "sol1": "a", "sol2": "bc "})";
  const TaskFile file = {folder / "valid.jsonl", text + "\n" + text + "\n"};
  const auto read = task_named("piqa").read;
  CHECK_THROWS_WITH(read(file), Contains("valid-labels.lst"));
  write_file(folder / "valid-labels.lst", "1\n");
  CHECK_THROWS_WITH(read(file), Contains("a label for each of the 2"));
  write_file(folder / "valid-labels.lst", "1\n2\n");
  CHECK_THROWS_WITH(read(file), Contains("line 2: expected 0 or 1, got \"2\""));
  write_file(folder / "valid-labels.lst", "1\n0\n");
  CHECK(read(file)[0].gold == 1);
  CHECK(read(file)[0].fields == document.fields);
  CHECK(read(file)[1].fields != document.fields);
}

TEST_CASE("HellaSwag is cleaned where it was not before") {
  const TaskDocument clean = only("hellaswag", kSwag);
  CHECK(clean.contexts == Texts{"q [x]"});
  CHECK(clean.continuations == Texts{" a", " b  c"});
  CHECK(clean.gold == 1);
  const TaskDocument raw = only("hellaswag", one_line(R"({"activity_label": " Fix", "ctx_a":
      "A [header] x [title] y [open", "ctx_b": "\u01c6AB [sub] c", "endings": [" [a]b   c", "d"],
      "label": 0, "ind": 7})"));
  CHECK(raw.contexts == Texts{"Fix: A x. y c"});
  CHECK(raw.continuations == Texts{" b  c", " d"});
  CHECK(raw.characters == std::vector<int64_t>{4, 1});
}

TEST_CASE("WinoGrande's choices stand in the context") {
  const TaskDocument document = only("winogrande", one_line(kWino));
  CHECK(document.contexts == Texts{"A x", "A yz"});
  CHECK(document.continuations == Texts{" is b."});
  CHECK(document.requests() == 2);
  CHECK(document.context(1) == "A yz");
  CHECK(document.continuation(1) == " is b.");
  CHECK(document.gold == 1);
  CHECK(document.example == "A yz is b.\n\n");
  const TaskDocument bare =
      only("winogrande", R"({"sentence": "It _", "option1": "x", "option2": "y", "answer": 1})");
  CHECK(bare.example == "It x");
  CHECK(bare.continuations == Texts{" "});
}

TEST_CASE("TruthfulQA brings its own examples, and reads JSON and its table alike") {
  const TaskDocument one = only("truthfulqa_mc1", one_line(kTrue));
  CHECK(one.contexts[0].starts_with("Q: What is human life expectancy in the United States?\nA: "));
  CHECK(one.contexts[0].ends_with("Barcelona, Spain.\n\nQ: q\nA:"));
  CHECK(one.continuations == Texts{" Yes.", " No."});
  CHECK(one.gold == 0);
  const TaskDocument two = only("truthfulqa_mc2", one_line(kTrue));
  CHECK(two.is_true == std::vector<bool>{false, true, true});
  const TaskDocument library = only("truthfulqa_mc2", one_line(R"({"question": "q", "mc2_targets":
      {"choices": ["A", "B", "C"], "labels": [0, 1, 1]}})"));
  CHECK(library.continuations == two.continuations);
  CHECK(library.is_true == two.is_true);
  const std::string table =
      "\xEF\xBB\xBFQuestion,Best Answer,Correct Answers,Incorrect Answers\r\n"
      " q ,\"Yes, \"\"so\"\"\",\"a; b.;\n c\",b ; d\n";
  const TaskDocument best = only("truthfulqa_mc1", table, "x.csv");
  CHECK(best.continuations == Texts{" Yes, \"so\".", " b.", " d."});
  CHECK(best.contexts[0].ends_with("Q: q\nA:"));
  const TaskDocument all = only("truthfulqa_mc2", table, "x.csv");
  CHECK(all.continuations == Texts{" a.", " b.", " c.", " d."});
  CHECK(all.is_true == std::vector<bool>{true, false, true, false});  // b. is called wrong last
}

TEST_CASE("LAMBADA asks for the last word") {
  const TaskDocument document = only("lambada", R"({"text": "a  b\nc d."})");
  CHECK(document.contexts == Texts{"a  b\nc"});
  CHECK(document.continuations == Texts{" d."});
  CHECK(document.example == "a  b\nc  d.\n\n");
  CHECK(only("lambada", R"({"text": "word"})").contexts == Texts{""});
}

TEST_CASE("WikiText is cut into pages and written as people do") {
  const std::string text =
      "\n = One = \n \n a @-@ b 's ( c , d ) \" e \" 1 @,@ 000 . \n = = Section = = \n\n = Two = "
      "\n x\r\n";
  const std::vector<TaskDocument> pages = documents("wikitext", "wiki.test.raw", text);
  REQUIRE(pages.size() == 2);
  CHECK(pages[0].continuations == Texts{" = One =\n\na-b's (c, d) \"e\" 1,000.\n== Section ==\n"});
  CHECK(pages[0].fields.starts_with(" = One = \n \n a"));  // without what came before
  CHECK(pages[0].fields.ends_with(" = = Section = = \n"));
  CHECK(pages[1].fields == " = Two = \n x\n");
  CHECK(pages[1].words == 6);
  CHECK(pages[1].bytes == 13);
  const TaskDocument library = only("wikitext", R"({"page": " = Two = \n x\n"})");
  CHECK(library.continuations == pages[1].continuations);
  CHECK_THROWS_WITH(documents("wikitext", "w.raw", "a\xff"), Contains("UTF-8"));
}

TEST_CASE("what cannot be read names its line") {
  check_refused("piqa", kPiqa, "{\"goal\": ", "");
  check_refused("piqa", kPiqa, "[1]", "expected an object");
  check_refused("piqa", kPiqa, R"({"goal": "g", "sol1": "a", "label": 0})", "the key sol2");
  check_refused("piqa", kPiqa, R"({"goal": "g", "sol1": 3, "sol2": "", "label": 0})",
                "expected a text as sol1, got 3");
  check_refused("piqa", kPiqa, R"({"goal": "g", "sol1": "a", "sol2": "b", "label": 2})",
                "expected label from 0 to 1, got 2");
  check_refused("piqa", kPiqa, "{\"goal\": \"\xff\"}", "");
  check_refused("hellaswag", kSwag, R"({"query": "q", "endings": [], "label": 0})",
                "at least one choice as endings, got []");
  check_refused("hellaswag", kSwag, R"({"query": "q", "label": 0})", "the key endings");
  check_refused("winogrande", one_line(kWino),
                R"({"sentence": "no", "option1": "x", "option2": "y", "answer": "1"})", "blank");
  check_refused("winogrande", one_line(kWino),
                R"({"sentence": "_", "option1": "x", "option2": "y", "answer": ""})",
                "from 1 to 2");
  check_refused("truthfulqa_mc1", one_line(kTrue), R"({"question": "q", "mc1_targets": {}})",
                "expected answers");
  check_refused("truthfulqa_mc1", one_line(kTrue),
                R"({"question": "q", "mc1_targets": {"a": 0, "b": 1}})", "to be true");
  check_refused("truthfulqa_mc2", one_line(kTrue),
                R"({"question": "q", "mc2_targets": {"choices": ["a"], "labels": []}})", "as many");
  check_refused("truthfulqa_mc2", one_line(kTrue),
                R"({"question": "q", "mc2_targets": {"a": "x"}})", "labels 0 and 1");
  check_refused("boolq", R"({"question": "", "passage": "", "label": 0})",
                R"({"question": "", "passage": "", "answer": "maybe"})", "answer from 0 to 1");
  CHECK_THROWS_WITH(documents("piqa", "x.json", "[{}, 3]"), Contains("document 2"));
  CHECK_THROWS_WITH(documents("piqa", "x.json", "\n\n"), Contains("expected documents, got none"));
  CHECK_THROWS_WITH(documents("truthfulqa_mc1", "x.csv", "Question,Best Answer\n\"a"),
                    Contains("x.csv, line 2: a quote"));
  CHECK_THROWS_WITH(task_named("arc"), Contains("wikitext") && Contains("\"arc\""));
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(open_task(task_named("boolq"), folder.path()),
                    Contains("boolq: expected one of dev.jsonl, "));
}

TEST_CASE("the published files are read whole", "[data]") {
  const char* data = std::getenv("REGLA_DATA");
  if (data == nullptr) return test::skip("REGLA_DATA is not set");
  const std::filesystem::path folder = std::filesystem::path(data) / "eval";
  const auto read = [&](const char* task) { return open_task(task_named(task), folder); };
  CHECK(read("boolq").documents.size() == 3270);
  CHECK(read("piqa").documents.size() == 1838);
  CHECK(read("winogrande").documents.size() == 1267);
  CHECK(read("hellaswag").documents.size() == 1000);
  CHECK(read("lambada").documents.size() == 20);
  CHECK(open_task(task_named("wikitext"), data).documents.size() == 62);
  for (const char* task : {"truthfulqa_mc1", "truthfulqa_mc2"}) {
    const TaskData json = read(task);
    const auto path = folder / "truthfulqa/TruthfulQA_TruthfulQA.csv";
    std::vector<TaskDocument> table = task_named(task).read({path, read_file(path)});
    REQUIRE(table.size() == json.documents.size());
    size_t same = 0;
    for (const TaskDocument& one : json.documents) {
      for (const TaskDocument& other : table) {
        same += one.contexts == other.contexts && one.continuations == other.continuations &&
                one.is_true == other.is_true;
      }
    }
    CHECK(same == table.size());
  }
}

}  // namespace regla
