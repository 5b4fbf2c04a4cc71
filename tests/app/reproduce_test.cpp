#include <chrono>
#include <thread>

#include "storage/json_fields.h"
#include "tests/app/support.h"

namespace regla::test {
namespace {

namespace fs = std::filesystem;

/// Keys that make trainings of a moment of what a scale says.
const std::vector<std::string> kTrial = {
    "--set",          "tokenizer=byte", "layers=2",     "hidden=16",          "heads=2",
    "mlp=32",         "steps=4",        "batch_size=2", "sequence_length=16", "checkpoint_every=2",
    "warmup_steps=1", "log_every=1"};

std::vector<std::string> with(std::vector<std::string> words,
                              const std::vector<std::string>& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

/// `regla reproduce` with a folder for runs and results.
class Laboratory {
 public:
  std::vector<std::string> words(const std::string& kind, const std::string& number,
                                 const std::string& out,
                                 const std::vector<std::string>& more = {}) const {
    const std::vector<std::string> all = {"reproduce",    kind,    number,     "--data",
                                          shop_ / "data", "--out", shop_ / out};
    return with(with(all, more), kTrial);
  }

  Outcome run(const std::vector<std::string>& arguments) const {
    const Outcome outcome = regla(arguments);
    CAPTURE(arguments, outcome.out, outcome.err);
    REQUIRE(outcome.code == 0);
    return outcome;
  }

  Json json(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin() + 3, "--json");
    return parse_json(run(arguments).out, "output");
  }

  /// Writes another number in the place of a run's perplexity.
  void plant(const std::string& out, const std::string& name, double perplexity) const {
    const std::string file = shop_ / (out + "/cpu/" + name + "/test.json");
    Json made = parse_json(read_file(file), file);
    REQUIRE(made["result"]["ppl"].is_number_float());
    made["result"]["ppl"] = perplexity;
    write_file(file, dumped(made));
  }

  std::string operator/(const std::string& name) const { return shop_ / name; }

 private:
  Workshop shop_;
};

/// The number of a cell.
double number_of(const Json& comparison, const std::string& row, const std::string& column,
                 const char* key) {
  for (const Json& cell : comparison["cells"]) {
    if (cell["row"] == row && cell["column"] == column) return cell[key].get<double>();
  }
  FAIL("no cell " << row << ", " << column);
  return 0;
}

int64_t latest_step(const std::string& run) {
  std::error_code error;
  const fs::path target = fs::read_symlink(fs::path(run) / "latest", error);
  return error ? -1 : std::stoll(target.filename().string());
}

/// The perplexities of a table, each with its row.
std::vector<std::pair<std::string, Json>> values_of(const Json& comparison) {
  std::vector<std::pair<std::string, Json>> values;
  for (const Json& cell : comparison["cells"]) values.emplace_back(cell["row"], cell["values"]);
  return values;
}

}  // namespace

TEST_CASE("a table is trained, scored and compared, and then only printed") {
  const Laboratory lab;
  const auto words = lab.words("table", "2", "out", {"--seeds", "3"});
  const Outcome plan = lab.run(with({"reproduce", "table", "2", "--dry-run"},
                                    std::vector<std::string>(words.begin() + 3, words.end())));
  CHECK_THAT(plan.out, Contains("15 of 15"));
  // 2 variants from scratch, 2 from the teacher, and the teacher, of 3 seeds and 4 updates of 2 x
  // 16
  CHECK_THAT(plan.out, Contains("15 runs, 60 updates, 1,920 tokens"));
  CHECK_THAT(plan.out, Contains("regla linearise " + lab / "out/cpu/transformer-2" +
                                " --mixer regla --set gate=sigmoid --set rope=full --layers all"));
  CHECK_FALSE(fs::exists(lab / "out"));

  const Outcome first = lab.run(words);
  CHECK_THAT(first.err, Contains("norm-0: regla train --data"));
  for (const char* run : {"norm", "no_norm", "from_softmax_norm", "from_softmax_no_norm"}) {
    for (int seed = 0; seed < 3; ++seed) {
      const std::string name = run + ("-" + std::to_string(seed));
      CHECK(latest_step(lab / ("out/cpu/" + name)) == 4);
      const Json config = parse_json(read_file(lab / ("out/cpu/" + name + "/config.json")), name);
      CHECK(config["seed"] == seed);
      CHECK(config["mixer"]["norm"] ==
            (name.find("no_norm") == std::string::npos ? "rms" : "none"));
    }
  }
  const double perplexities[] = {30.04, 33.04, 36.04};
  for (size_t seed = 0; seed < 3; ++seed) {
    lab.plant("out", "norm-" + std::to_string(seed), perplexities[seed]);
    lab.plant("out", "from_softmax_no_norm-" + std::to_string(seed), 80.05);
  }
  const Outcome again = lab.run(words);
  CHECK(again.err.empty());
  CHECK_THAT(
      again.out,
      Contains("| w/o pretrain, norm    |     3 |       33.0 |   3.00 |  33.9 |       -0.9 |"));
  CHECK_THAT(
      again.out,
      Contains("| w/ pretrain, no norm  |     3 |       80.0 |   0.00 |  73.0 |       +7.0 |"));
  CHECK(read_file(lab / "out/cpu/table2" + ".md") == again.out);
  const Json json = lab.json(words);
  CHECK(number_of(json, "w/o pretrain, norm", "perplexity", "ours") == Approx(33.04));
  CHECK(number_of(json, "w/o pretrain, norm", "perplexity", "spread") == Approx(3));
  CHECK(number_of(json, "w/o pretrain, norm", "perplexity", "difference") == Approx(-0.86));
  CHECK(json == parse_json(read_file(lab / "out/cpu/table2.json"), "table2.json"));
  // More seeds are trained beside those that are there.
  CHECK_THAT(lab.run(lab.words("table", "2", "out", {"--seeds", "4", "--dry-run"})).out,
             Contains("5 runs, 20 updates"));
  CHECK_THAT(refused(with(words, {"steps=5"})),
             Contains("trained with other values of steps; use"));
}

TEST_CASE("a reproduction that was killed goes on, and several share a folder") {
  const Laboratory lab;
  const std::vector<std::string> longer = {"steps=60", "checkpoint_every=20", "eval_every=0"};
  const auto words = [&](const std::string& out) {
    return with(lab.words("table", "2", out, {"--seeds", "1"}), longer);
  };
  const Json straight = lab.json(words("straight"));
  {
    Process killed(command(words("broken")));
    while (latest_step(lab / "broken/cpu/no_norm-0") < 20 && killed.read(1)) {
    }
    killed.kill(SIGKILL);
    REQUIRE(killed.wait().code == 128 + SIGKILL);
  }
  CHECK(latest_step(lab / "broken/cpu/no_norm-0") < 60);
  CHECK(values_of(lab.json(words("broken"))) == values_of(straight));
  CHECK_THAT(read_file(lab / "broken/cpu/no_norm-0/metrics.jsonl"), Contains("\"step\":1,"));

  Process one(command(words("shared"))), other(command(words("shared")));
  const Outcome first = one.wait(), second = other.wait();
  CAPTURE(first.err, second.err);
  CHECK(first.code == 0);
  CHECK(second.code == 0);
  CHECK(first.out == second.out);
  CHECK(values_of(lab.json(words("shared"))) == values_of(straight));
}

TEST_CASE("Table 5 scores tasks in 0 and 5 shots") {
  const Laboratory lab;
  std::string boolq, piqa, hellaswag, winogrande;
  Json truthfulqa = Json::array();
  for (int i = 0; i < 7; ++i) {
    const std::string n = std::to_string(i);
    boolq += R"({"question": "is it )" + n + R"(", "passage": "It is.", "label": 1})" + "\n";
    piqa += R"({"goal": "go )" + n + R"(", "sol1": "on", "sol2": "off", "label": 0})" + "\n";
    hellaswag += R"({"activity_label": "A", "ctx_a": "He )" + n +
                 R"(", "ctx_b": "and", "endings": ["a", "b", "c", "d"], "label": 2})" + "\n";
    winogrande +=
        R"({"sentence": "A _ )" + n + R"(", "option1": "x", "option2": "y", "answer": "1"})" + "\n";
    truthfulqa.push_back({{"question", "What is " + n + "?"},
                          {"mc1_targets", {{"one", 1}, {"two", 0}}},
                          {"mc2_targets", {{"one", 1}, {"two", 0}}}});
  }
  const std::pair<std::string, std::string> files[] = {
      {"boolq/dev.jsonl", boolq},
      {"piqa/valid.jsonl", piqa},
      {"hellaswag/hellaswag_val.jsonl", hellaswag},
      {"winogrande/dev.jsonl", winogrande},
      {"truthfulqa/mc_task.json", truthfulqa.dump()}};
  for (const auto& [name, text] : files) {
    fs::create_directories(fs::path(lab / ("tasks/" + name)).parent_path());
    write_file(lab / ("tasks/" + name), text);
  }
  const Json json = lab.json(lab.words(
      "table", "5", "out", {"--seeds", "2", "--limit", "6", "--task-data", lab / "tasks"}));
  REQUIRE(json["cells"].size() == 2 * 6 * 7);
  const std::string file = lab / "out/cpu/from_softmax_regla-1/tasks-5.json";
  const Json tasks = parse_json(read_file(file), file)["result"]["tasks"];
  CHECK(tasks["hellaswag"]["documents"] == 6);
  const double ours = tasks["hellaswag"]["scores"]["acc_norm"]["value"].get<double>();
  for (const Json& cell : json["cells"]) {
    REQUIRE(cell["values"].size() == 2);
    if (cell["row"] != "5-shot, ReGLA") continue;
    if (cell["column"] == "HellaSwag") CHECK(cell["values"][1].get<double>() == Approx(100 * ours));
  }
  CHECK(number_of(json, "0-shot, ReGLA", "mean", "paper") == Approx(45.3167).epsilon(1e-4));
  for (const char* task : {"TruthfulQA 1", "TruthfulQA 2"}) {
    CHECK(number_of(json, "0-shot, Hedgehog", task, "ours") ==
          number_of(json, "5-shot, Hedgehog", task, "ours"));
  }
  CHECK_THAT(dumped(json["notes"]), Contains("are the same number"));
  CHECK_THAT(refused({"reproduce", "table", "5", "--data", lab / "data"}), Contains("--task-data"));
}

TEST_CASE("figures are drawn and compared") {
  const Laboratory lab;
  write_file(lab / "data/t.valid.txt", some_text(60, 4));  // a sequence of Figure 2 at least
  const auto words = [&](const char* number) {
    return lab.words("figure", number, "out", {"--seeds", "2"});
  };
  const Json spread = lab.json(words("2"));
  CHECK(number_of(spread, "d = 64", "exp, normal numbers", "paper") == Approx(54.97).epsilon(1e-3));
  CHECK(number_of(spread, "d = 64", "exp, normal numbers", "ours") == Approx(55).epsilon(0.05));
  CHECK(number_of(spread, "d = 64", "exp, normal numbers", "spread") > 0);
  const Json gradient = lab.json(words("3"));
  for (const Json& cell : gradient["cells"]) {
    CHECK(std::abs(cell["difference"].get<double>()) < 1e-9);
  }
  REQUIRE(gradient["cells"].size() == 7 * 6);
  const Json gates = lab.json(words("4"));
  CHECK(number_of(gates, "bias 6, refined, before", "F > 0.95", "ours") > 90);
  CHECK(gates["cells"][0]["paper"].is_null());
  const Json decoding = lab.json(with(words("5"), {"sequence_length=128", "vocab=64"}));
  CHECK(number_of(decoding, "128", "softmax, ms", "ours") > 0);
  CHECK(number_of(decoding, "64", "ReGLA / Fast Decay, ms", "paper") == 1);
  for (const char* name : {"figure2-0/variance", "figure3-0/gate-gradient",
                           "figure4-0/gate-histogram", "figure5/decode"}) {
    CHECK(fs::exists(lab / ("out/cpu/" + std::string(name) + ".gp")));
  }
  CHECK(lab.run(words("4")).err.find("regla analyse") == std::string::npos);
}

TEST_CASE("what cannot be reproduced is refused in a line") {
  const Laboratory lab;
  const std::vector<std::string> table = {"reproduce", "table", "2", "--out", lab / "out"};
  const std::vector<std::string> text = {"--data", lab / "data"};
  CHECK_THAT(refused({"reproduce", "table", "3"}), Contains("expected one of 2, 4, 5, 6"));
  CHECK_THAT(refused({"reproduce", "figure", "1"}), Contains("expected one of 2, 3, 4, 5"));
  CHECK_THAT(refused({"reproduce", "table"}), Contains("number"));
  CHECK_THAT(refused(table), Contains("--data"));
  CHECK_THAT(refused(with(table, {"--data", lab / "nothing"})), Contains("nothing"));
  CHECK_THAT(refused(with(table, with(text, {"--seeds", "0"}))), Contains("--seeds"));
  CHECK_THAT(refused(with(table, with(text, {"--scale", "7b"}))), Contains("cpu, 160m"));
  CHECK_THAT(refused(with(table, with(text, {"--set", "seed=4"}))), Contains("--seeds"));
  CHECK_THAT(refused(with(table, with(text, {"--set", "layerz=4"}))), Contains("layers"));
  CHECK_THAT(refused(with(table, with(text, {"--teacher", lab / "none"}))), Contains("none"));
  fs::remove(lab / "data/t.test.txt");
  CHECK_THAT(refused(with(table, text)), Contains("test"));
  CHECK_FALSE(fs::exists(lab / "out"));
}

}  // namespace regla::test
