#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <sstream>

#include "storage/json_fields.h"
#include "storage/sha256.h"
#include "tests/app/support.h"

namespace regla::test {
namespace {

namespace fs = std::filesystem;

const char* const kPiqa =
    R"({"goal": "keep a gate open", "sol1": "lift it", "sol2": "a stone there", "label": 1}
{"goal": "stay", "sol1": "do not move from here", "sol2": "go", "label": 0}
{"goal": "count", "sol1": "1", "sol2": "one", "label": 0}
)";

/// A folder with a run of T = 32 bytes and files of some tasks.
class Tasks {
 public:
  Tasks() {
    for (const char* task : {"piqa", "lambada", "wikitext", "winogrande"}) {
      fs::create_directories(shop_ / ("tasks/" + std::string(task)));
    }
    write("piqa/valid.jsonl", kPiqa);
    write("lambada/test.jsonl", "{\"text\": \"the state decays slowly\"}\n{\"text\": \"a\"}\n");
    write("wikitext/wiki.test.raw", " = One = \n the gate stays , and stays , and stays . \n");
    write(
        "winogrande/dev.jsonl",
        "{\"sentence\": \"A _ c.\", \"option1\": \"x\", \"option2\": \"y\", \"answer\": \"1\"}\n");
    const Outcome outcome = regla(shop_.train("run", {"--steps", "3"}));
    CAPTURE(outcome.err);
    REQUIRE(outcome.code == 0);
  }

  void write(const std::string& name, const std::string& text) const {
    write_file(shop_ / ("tasks/" + name), text);
  }
  std::string operator/(const std::string& name) const { return shop_ / name; }

  std::vector<std::string> eval(const std::string& tasks,
                                const std::vector<std::string>& more = {}) const {
    std::vector<std::string> all = {"eval", shop_ / "run", "--tasks",
                                    tasks,  "--task-data", shop_ / "tasks"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }

  Json json(const std::string& tasks, std::vector<std::string> more = {}) const {
    more.emplace_back("--json");
    const Outcome outcome = regla(eval(tasks, more));
    CAPTURE(outcome.err);
    REQUIRE(outcome.code == 0);
    return parse_json(outcome.out, "output");
  }

 private:
  Workshop shop_;
};

std::vector<Json> lines_of(const std::string& path) {
  std::vector<Json> lines;
  std::istringstream text(read_file(path));
  for (std::string line; std::getline(text, line);) lines.push_back(parse_json(line, "line"));
  return lines;
}

}  // namespace

TEST_CASE("tasks are scored, and the result says of what") {
  const Tasks folder;
  const Json all = folder.json("piqa,lambada,wikitext", {"--samples", folder / "samples.jsonl"});
  CHECK(all["follows"] == "lm-evaluation-harness 0.4.13");
  CHECK(all["length"] == 32);
  const Json& piqa = all["tasks"]["piqa"];
  CHECK(piqa["version"] == "1.0");
  CHECK(piqa["shots"] == 0);
  CHECK(piqa["documents"] == 3);
  CHECK(piqa["requests"] == 6);
  CHECK(piqa["truncated"] == 3);
  CHECK(piqa["sha256"] == sha256(kPiqa));
  CHECK(piqa["scores"]["acc"]["error"].get<double>() > 0);
  CHECK(all["tasks"]["wikitext"]["scores"]["word_perplexity"]["error"].is_null());
  const std::vector<Json> samples = lines_of(folder / "samples.jsonl");
  REQUIRE(samples.size() == 3 + 2 + 1);
  CHECK(samples[0]["requests"][0]["context"] == "Question: keep a gate open\nAnswer:");
  CHECK(samples[0]["requests"][1]["continuation"] == " a stone there");
  CHECK(samples[0]["requests"][1]["continuation_ids"].size() == 14);
  double right = 0, nats = 0;
  for (size_t i = 0; i < 3; ++i) {
    const Json& requests = samples[i]["requests"];
    const bool second =
        requests[1]["log_likelihood"].get<double>() > requests[0]["log_likelihood"].get<double>();
    right += samples[i]["target"] == (second ? 1 : 0);
  }
  CHECK(piqa["scores"]["acc"]["value"].get<double>() == Approx(right / 3));
  for (const Json& window : samples[5]["requests"]) nats -= window["log_likelihood"].get<double>();
  CHECK(all["tasks"]["wikitext"]["scores"]["byte_perplexity"]["value"].get<double>() ==
        Approx(std::exp(nats / 53)));
  CHECK(samples[4]["requests"][0]["context"] == "");
}

TEST_CASE("examples come from a training file where there is one, and the output says so") {
  const Tasks folder;
  CHECK(folder.json("piqa", {"--shots", "2"})["tasks"]["piqa"]["examples_from"] ==
        "the other scored documents: there is no training file");
  folder.write("piqa/train.jsonl", kPiqa);
  const Json piqa = folder.json("piqa", {"--shots", "2", "--limit", "2"})["tasks"]["piqa"];
  CHECK(piqa["examples_from"] == folder / "tasks/piqa/train.jsonl");
  CHECK(piqa["pool_sha256"] == piqa["sha256"]);
  CHECK(piqa["documents"] == 2);
  CHECK(piqa["documents_in_file"] == 3);
  CHECK(piqa["shots"] == 2);
  CHECK(piqa["truncated"] == 4);
  CHECK(piqa["without_shared_context"] == 2);  // each choice is cut at another place
  const Outcome text = regla(folder.eval("winogrande,wikitext"));
  CHECK_THAT(text.out, Contains("winogrande             0-shot, acc "));
  CHECK_THAT(text.out, Contains("none, the task has no context"));
  CHECK_THAT(text.out, Contains("sha256 "));
}

TEST_CASE("what tasks cannot do is refused in one line") {
  const Tasks folder;
  const auto refusal = [&](const std::string& tasks, const std::vector<std::string>& more = {}) {
    return refused(folder.eval(tasks, more));
  };
  CHECK_THAT(refusal("piqa,arc"), Contains("expected tasks among boolq, ") && Contains("\"arc\""));
  CHECK_THAT(refusal("piqa,"), Contains("got \"\""));
  CHECK_THAT(refusal("boolq"), Contains("expected one of dev.jsonl") && Contains("tasks/boolq"));
  CHECK_THAT(refusal("piqa", {"--shots", "3"}), Contains("piqa: expected at most 2 shots"));
  CHECK_THAT(refusal("piqa", {"--shots", "-1"}), Contains("--shots"));
  CHECK_THAT(refusal("piqa", {"--limit", "0"}), Contains("--limit"));
  CHECK_THAT(refusal("piqa", {"--data", folder / "data"}), Contains("either --data"));
  CHECK_THAT(refused({"eval", folder / "run"}), Contains("either --data"));
  CHECK_THAT(refused({"eval", folder / "run", "--tasks", "piqa"}), Contains("--task-data"));
  CHECK_THAT(refused({"eval", folder / "run", "--data", folder / "data", "--shots", "1"}),
             Contains("need --tasks"));
  folder.write("piqa/valid.jsonl", std::string(kPiqa) + "{\"goal\": \n");
  CHECK_THAT(refusal("piqa"), Contains("valid.jsonl, line 4:"));
  folder.write("piqa/valid.jsonl", "{\"goal\": \"a\", \"sol1\": \"" + std::string(40, 'x') +
                                       "\", \"sol2\": \"b\", \"label\": 0}\n");
  CHECK_THAT(refusal("piqa"), Contains("at most 32 tokens") && Contains("(piqa, document 1)"));
  CHECK_THAT(refusal("winogrande", {"--samples", folder / "none/samples"}), Contains("samples"));
  fs::create_directories(folder / "tasks/hellaswag");
  folder.write("hellaswag/validation.jsonl", "{\"query\": \"q\", \"endings\": [], \"label\": 0}\n");
  CHECK_THAT(refusal("hellaswag"),
             Contains("validation.jsonl, line 1:") && Contains("at least one choice as endings"));
  CHECK_THAT(refused({"eval", folder / "run", "--tasks", "piqa", "--task-data", folder / "no"}),
             Contains("piqa: expected one of valid.jsonl") && Contains("no/piqa"));
}

TEST_CASE("a tokenizer without a byte is refused where a run is opened") {
  const Tasks folder;
  const fs::path path = fs::canonical(folder / "run/tokenizer.json");
  Json tokenizer = parse_json(read_file(path), "test");
  Json& vocabulary = tokenizer["model"]["vocab"];
  vocabulary.erase("a");
  vocabulary["zz"] = 97;
  write_file(path, tokenizer.dump());
  CHECK_THAT(refused(folder.eval("piqa")), Contains("got none for byte 97"));
}

TEST_CASE("lm-evaluation-harness scores the same files alike") {
  const char* const data = std::getenv("REGLA_DATA");
  if (data == nullptr) return skip("REGLA_DATA is not set");
  const Workshop shop;
  const char* const python = std::getenv("REGLA_PYTHON");
  const Outcome outcome =
      Process({"/usr/bin/env", python ? python : "python3",
               std::string(REGLA_SOURCE_DIR) + "/tests/scoring/harness_comparison.py",
               REGLA_PROGRAM, data, "--limit", "12", "--shots", "5"})
          .wait();
  if (outcome.code == 77 || outcome.code == 127) return skip(outcome.out + outcome.err);
  CAPTURE(outcome.out, outcome.err);
  CHECK(outcome.code == 0);
}

}  // namespace regla::test
