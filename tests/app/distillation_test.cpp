#include <sys/stat.h>

#include <chrono>
#include <thread>

#include "storage/json_fields.h"
#include "tests/app/support.h"
#include "tests/gpu.h"

// A model that learns from another: linearised, and trained in stages.
namespace regla::test {
namespace {

namespace fs = std::filesystem;

std::string done(const std::vector<std::string>& arguments) {
  const Outcome outcome = regla(arguments);
  CAPTURE(arguments, outcome.err);
  REQUIRE(outcome.code == 0);
  return outcome.out;
}

/// A workshop with a run of softmax attention, `teacher`, and stages that learn from it.
struct School : Workshop {
  School() {
    done(train("teacher", {"--steps", "20", "--set", "mixer=softmax", "micro_batches=2"}));
    write("stages.json", R"([{"objective": "match", "steps": 20},
        {"objective": "distil", "steps": 20, "learning_rate": 0.002, "sequence_length": 24}])");
  }
  void write(const std::string& name, const std::string& stages) const {
    write_file(*this / name, R"({"teacher": ")" + *this / "teacher" + R"(", "steps": 60,
        "carry_state": true, "stages": )" +
                                 stages + "}");
  }

  void linearise(const std::string& run, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> all = {"linearise",  *this / "teacher", "--mixer", "regla",
                                    "--protocol", "distil",          "--out",   *this / run};
    all.insert(all.end(), more.begin(), more.end());
    done(all);
  }
  std::vector<std::string> resume(const std::string& run,
                                  const std::vector<std::string>& more = {}) const {
    std::vector<std::string> all = {"train",     "--resume", "--out",
                                    *this / run, "--data",   *this / "data"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  std::vector<std::string> learn(const std::string& run, const std::string& config) const {
    return resume(run, {"--config", *this / config});
  }
};

std::string contents(const std::string& run) {
  return read_file(run + "/model.safetensors") + read_file(run + "/optimizer.safetensors");
}

std::vector<Json> lines_of(const std::string& run) {
  std::vector<Json> lines;
  const std::string text = read_file(run + "/metrics.jsonl");
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    lines.push_back(parse_json(text.substr(at, end - at), "metrics"));
    at = end + 1;
  }
  return lines;
}

/// Kills a training once it has written so many lines of metrics. Returns whether it was at work.
bool kill_after(const std::vector<std::string>& arguments, const std::string& run, size_t lines) {
  Process training(command(arguments));
  const auto written = [&] {
    const std::string path = run + "/metrics.jsonl";
    const std::string text = fs::exists(path) ? read_file(path) : "";
    return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
  };
  while (written() < lines && training.read(1)) {
  }
  training.kill(SIGKILL);
  return training.wait().code == 128 + SIGKILL;
}

void check_kills(const School& school, const std::vector<std::string>& more) {
  const auto begin = [&](const std::string& run) {
    school.linearise(run);
    std::vector<std::string> all = school.learn(run, "stages.json");
    all.insert(all.end(), {"--set", "checkpoint_every=7"});
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  done(begin("straight"));
  for (const size_t line : {size_t{10}, size_t{25}, size_t{45}}) {  // one in every stage
    CAPTURE(line);
    bool killed = false;
    for (int trial = 0; trial < 20 && !killed; ++trial) {
      fs::remove_all(school / "broken");
      killed = kill_after(begin("broken"), school / "broken", line);
    }
    REQUIRE(killed);
    done(school.resume("broken"));
    CHECK(contents(school / "broken") == contents(school / "straight"));
    const std::vector<Json> a = lines_of(school / "straight"), b = lines_of(school / "broken");
    REQUIRE(a.size() == b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      CHECK(a[i]["step"] == b[i]["step"]);
      CHECK(a[i]["loss"] == b[i]["loss"]);
    }
  }
}

}  // namespace

TEST_CASE("a linearised model learns from its teacher in stages") {
  const School school;
  school.linearise("student");
  const auto config = [&] { return parse_json(read_file(school / "student/config.json"), "test"); };
  CHECK(config()["mixer"]["gate_bias"] == 4);
  CHECK(config()["mixer"]["type"] == "regla");
  const std::string said = done(school.learn("student", "stages.json"));
  CHECK_THAT(said, Contains("match: 20 of 128 tokens from step 0, learning rate 0.001"));
  CHECK_THAT(said, Contains("distil: 20 of 96 tokens from step 20, learning rate 0.002"));
  CHECK_THAT(said, Contains("train: 20 of 128 tokens from step 40, learning rate 0.003"));
  const std::vector<Json> lines = lines_of(school / "student");
  REQUIRE(lines.size() >= 60);
  double first = 0, last = 0;
  for (const Json& line : lines) {
    if (line.contains("split")) continue;
    const int64_t step = line["step"].get<int64_t>();
    const std::string objective = line.value("objective", "train");
    CHECK(objective == (step <= 20 ? "match" : step <= 40 ? "distil" : "train"));
    CHECK(line.contains("match.0") == (step <= 20));
    CHECK(line.contains("match.1") == (step <= 20));
    if (step == 1) first = line["match.1"].get<double>();
    if (step == 20) last = line["match.1"].get<double>();
  }
  CHECK(last < 0.9 * first);
  CHECK(config()["stages"].size() == 2);
  // The stages are done: more is plain training, without the teacher.
  fs::remove_all(school / "teacher");
  done(school.resume("student", {"--steps", "65"}));
  CHECK(parse_json(read_file(school / "student/state.json"), "test")["step"] == 65);
  done({"generate", school / "student", "--prompt", "the", "--max-new-tokens", "2"});
}

TEST_CASE("a training in stages that is killed and goes on has the bits of one that was not") {
  const School school;
  check_kills(school, {});
}

TEST_CASE("a training in stages on a GPU that is killed and goes on has the same bits", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  const School school;
  for (const char* precision : {"fp32", "bf16"}) {
    CAPTURE(precision);
    fs::remove_all(school / "straight");
    check_kills(school, {"precision=" + std::string(precision), "--device", device->text()});
  }
}

TEST_CASE("stages that cannot be are refused in one line") {
  const School school;
  school.linearise("student");
  const auto said = [&](const std::string& stages) {
    school.write("wrong.json", stages);
    return refused(school.learn("student", "wrong.json"));
  };
  CHECK_THAT(said(R"([{"objective": "mach"}])"), Contains("stages.0.objective"));
  CHECK_THAT(said(R"([{"objective": "mach"}])"), Contains("match, distil, train"));
  CHECK_THAT(said(R"([{"objective": "match", "step": 3}])"), Contains("stages.0.steps"));
  CHECK_THAT(said(R"("match")"), Contains("list of objects"));
  CHECK_THAT(said(R"([{"objective": "distil", "sequence_length": 900000}])"), Contains("900000"));
  const auto learn = [&](const std::string& run, const std::string& set) {
    std::vector<std::string> all = school.learn(run, "stages.json");
    all.insert(all.end(), {"--set", set});
    return refused(all);
  };
  CHECK_THAT(learn("student", "teacher="), Contains("objective match, which needs a teacher"));
  CHECK_THAT(learn("student", "teacher=" + school / "nobody"), Contains("nobody"));
  CHECK_THAT(learn("student", "teacher=" + school / "student"),
             Contains("there is nothing to match"));
  done(school.train("other", {"--steps", "1", "--set", "mixer=softmax", "hidden=16"}));
  CHECK_THAT(learn("student", "teacher=" + school / "other"), Contains("in more than its mixers"));
  CHECK_FALSE(fs::exists(school / "student/metrics.jsonl"));
  // A training that has begun keeps its stages.
  done(school.resume("student", {"--config", school / "stages.json", "--set", "steps=2"}));
  CHECK_THAT(refused(school.resume("student", {"--set", "stages.0.steps=30"})),
             Contains("stages.0.steps"));
  CHECK_THAT(refused({"linearise", school / "teacher", "--mixer", "gla", "--protocol", "destil",
                      "--out", school / "x"}),
             Contains("--protocol"));
}

TEST_CASE("a protocol of linearise says how the new mixer begins") {
  const School school;
  const auto mixer = [&](const std::string& run, const std::vector<std::string>& more) {
    fs::remove_all(school / run);
    school.linearise(run, more);
    return parse_json(read_file(school / (run + "/config.json")), "test")["mixer"];
  };
  CHECK(mixer("a", {"--set", "gate_bias=2"})["gate_bias"] == 2);
  done({"linearise", school / "teacher", "--mixer", "regla", "--out", school / "paper"});
  const Json paper = parse_json(read_file(school / "paper/config.json"), "test")["mixer"];
  CHECK(paper["gate_bias"] == 0);
  done({"linearise", school / "teacher", "--mixer", "hedgehog", "--protocol", "distil", "--out",
        school / "hedgehog"});
  const Json ungated = parse_json(read_file(school / "hedgehog/config.json"), "test")["mixer"];
  CHECK(ungated["gate"] == "none");
  CHECK(ungated["gate_bias"] == 0);
}

TEST_CASE("a hybrid is scored without its softmax layers") {
  const School school;
  school.linearise("hybrid", {"--layers", "alternate"});
  const auto loss = [&](const std::string& run, const std::vector<std::string>& more) {
    std::vector<std::string> all = {"eval", school / run, "--data", school / "data", "--json"};
    all.insert(all.end(), more.begin(), more.end());
    return parse_json(done(all), "test")["loss"].get<double>();
  };
  const std::string without = "--without-softmax-layers";
  CHECK(loss("hybrid", {without}) != loss("hybrid", {}));
  CHECK(loss("hybrid", {without}) != loss("teacher", {without}));
  school.linearise("linear");
  CHECK_THAT(refused({"eval", school / "linear", "--data", school / "data", without}),
             Contains("has no softmax layers to leave out"));
}

}  // namespace regla::test
