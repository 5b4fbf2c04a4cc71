#include <algorithm>
#include <fstream>
#include <sstream>

#include "storage/json_fields.h"
#include "tests/app/support.h"

namespace regla::test {
namespace {

namespace fs = std::filesystem;

/// A run of 40 updates with two validations, and metrics of every update.
void make_run(const Workshop& shop, const std::string& run, std::vector<std::string> more = {}) {
  std::vector<std::string> arguments = {"--steps", "40", "--set", "eval_every=20"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const Outcome outcome = regla(shop.train(run, arguments));
  CAPTURE(outcome.err);
  REQUIRE(outcome.code == 0);
}

/// The page about runs, with these after them.
std::string page_of(const Workshop& shop, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "report");
  arguments.insert(arguments.end(), {"--out", shop / "report.html"});
  const Outcome outcome = regla(arguments);
  CAPTURE(arguments, outcome.out, outcome.err);
  REQUIRE(outcome.code == 0);
  CHECK(outcome.err.empty());
  return read_file(shop / "report.html");
}

/// The element that is open where tags do not match; empty where all do.
std::string unmatched(const std::string& page) {
  std::vector<std::string> open;
  for (size_t at = page.find("<html"); (at = page.find('<', at)) != page.npos;) {
    const size_t end = page.find('>', at);
    if (end == page.npos) return "a tag";
    const std::string tag = page.substr(at + 1, end - at - 1);
    const std::string name = tag.substr(0, tag.find_first_of(" \n\t/", 1));
    if (tag[0] == '/') {
      if (open.empty() || open.back() != tag.substr(1)) return tag;
      open.pop_back();
    } else if (name != "meta" && tag.back() != '/') {
      open.push_back(name);
    }
    at = end;
  }
  return open.empty() ? "" : open.back();
}

size_t count(const std::string& text, const std::string& part) {
  size_t times = 0;
  for (size_t at = 0; (at = text.find(part, at)) != text.npos; at += part.size()) ++times;
  return times;
}

std::vector<Json> lines_of(const std::string& path) {
  std::vector<Json> lines;
  std::istringstream text(read_file(path));
  for (std::string line; std::getline(text, line);) lines.push_back(parse_json(line, "line"));
  return lines;
}

/// Appends to the metrics of a run.
void add_metrics(const Workshop& shop, const std::string& run, const std::string& lines) {
  std::ofstream(shop / run + "/metrics.jsonl", std::ios::app) << lines;
}

}  // namespace

TEST_CASE("a report has all parts of its runs and loads nothing") {
  if (!has_gnuplot()) return skip("gnuplot is not installed");
  const Workshop shop;
  make_run(shop, "first", {"--set", "report=true"});
  make_run(shop, "second", {"--set", "mixer=softmax"});
  fs::create_directory(shop / "first/results");
  write_file(shop / "first/results/test.json",
             regla({"eval", shop / "first", "--data", shop / "data", "--json"}).out);
  write_file(shop / "first/results/tasks.json",
             R"({"tasks": {"boolq": {"shots": 5, "scores": {"acc": {"value": 0.625,
                 "error": 0.01}}}}})");
  const std::string page = page_of(shop, {shop / "first", shop / "second", "--prompt", "the gate"});
  CHECK(unmatched(page).empty());
  for (const char* part :
       {"Training loss", "Validation loss", "Learning rate", "Gradient norm", "Speed",
        "Gates on the validation text", "Saturated gates", "word_ppl", "boolq, 5-shot, acc",
        "0.625 ± 0.01", "the gate", "training FLOPs per token", "instruction_sets", "What differs",
        "mixer.type", "softmax", "prefers-color-scheme: dark", "width=device-width",
        "default-src 'none'"}) {
    CHECK_THAT(page, Contains(part));
  }
  CHECK(count(page, "<svg") == 7);
  for (const char* loaded : {"<script", "src=", "@import", "url(", "<link", "<iframe"}) {
    CHECK(count(page, loaded) == 0);
  }
  // Two colours and the ground's own; none that would stay as it is in the dark.
  CHECK(count(page, "var(--blue)") > 0);
  CHECK(count(page, "var(--orange)") > 0);
  CHECK(count(page, "\"black\"") + count(page, "'black'") == 0);
}

TEST_CASE("a training with report: true has the same bits, gates over time and a page") {
  const Workshop shop;
  make_run(shop, "with", {"--set", "report=true"});
  make_run(shop, "without");
  CHECK(read_file(shop / "with/model.safetensors") ==
        read_file(shop / "without/model.safetensors"));
  CHECK_FALSE(fs::exists(shop / "without/gates.jsonl"));
  const std::vector<Json> gates = lines_of(shop / "with/gates.jsonl");
  REQUIRE(gates.size() == 9);  // before, and after 20 and 40 updates: all layers and two
  CHECK(gates[3]["step"] == 20);
  CHECK(gates[3]["layer"] == "all");
  double sum = 0;
  for (const Json& bin : gates[3]["bins"]) sum += bin.get<double>();
  CHECK(sum == Approx(1));
  CHECK(fs::exists(shop / "with/report.html") == has_gnuplot());
  CHECK_FALSE(fs::exists(shop / "without/report.html"));
}

TEST_CASE("gates and machines of a run that goes on are there once") {
  const Workshop shop;
  make_run(shop, "run", {"--set", "report=true"});
  for (int again = 0; again < 2; ++again) {
    const std::string steps = again == 0 ? "60" : "80";
    REQUIRE(regla(shop.train("run", {"--resume", "--steps", steps, "--set", "report=true"})).code ==
            0);
  }
  std::vector<int64_t> begun, seen;
  for (const Json& line : lines_of(shop / "run/machines.jsonl")) begun.push_back(line["step"]);
  for (const Json& line : lines_of(shop / "run/gates.jsonl")) {
    if (line["layer"] == "all") seen.push_back(line["step"]);
  }
  CHECK(begun == std::vector<int64_t>{0, 40, 60});
  CHECK(seen == std::vector<int64_t>{0, 20, 40, 60, 80});
  const std::vector<Json> lines = lines_of(shop / "run/machines.jsonl");
  for (const char* key : {"started", "regla", "compiler", "processor", "threads", "device"}) {
    CHECK(lines[0].contains(key));
  }
  // What a training wrote that was killed before its next checkpoint is of no use.
  std::ofstream(shop / "run/machines.jsonl", std::ios::app) << "{\"step\": 80}\nnoise\n";
  REQUIRE(regla(shop.train("run", {"--resume", "--steps", "80"})).code == 0);
  CHECK(lines_of(shop / "run/machines.jsonl").size() == 4);
}

TEST_CASE("nothing that a run says is markup") {
  if (!has_gnuplot()) return skip("gnuplot is not installed");
  const Workshop shop;
  const std::string evil = "<script>alert('1')</script>", name = "a<b onload='x'>&";
  make_run(shop, name);
  fs::create_directory(shop / name + "/results");
  write_file(shop / name + "/results/<i>.json",
             dumped({{"<img src=x>", "<img src=x>"}, {"list", {evil, 1.5}}}));
  write_file(shop / name + "/results/s.json",
             dumped({{"prompt", evil}, {"text", "\x01\x1b\u202e" + evil}}));
  std::ofstream(shop / name + "/machines.jsonl", std::ios::app)
      << dumped({{"step", 1}, {"gpu", evil}}) + "\n";
  const std::string page = page_of(shop, {shop / name, "--prompt", evil + "\"&"});
  CHECK(unmatched(page).empty());
  for (const char* markup : {"<script", "<img", "<i>", "<b "}) CHECK(count(page, markup) == 0);
  CHECK_THAT(page, Contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot;&amp;"));
  CHECK_THAT(page, Contains("a&lt;b onload=&#39;x&#39;&gt;&amp;"));
  CHECK(page.find('\x01') == page.npos);
}

TEST_CASE("a report says what a run lacks") {
  if (!has_gnuplot()) return skip("gnuplot is not installed");
  const Workshop shop;
  make_run(shop, "run");
  const auto page = [&](const std::string& run) { return page_of(shop, {shop / run}); };
  SECTION("losses that are not finite, lines that are none, a line that is cut off") {
    add_metrics(shop, "run",
                "{\"step\": 41, \"loss\": null, \"grad_norm\": null, \"elapsed_s\": null}\n"
                "noise\n{\"step\": \"x\"}\n[1]\n{\"step\": 42, \"loss\": 1}\n{\"step\": 43, \"lo");
    const std::string text = page("run");
    CHECK_THAT(text, Contains("not finite in 1 of 42 lines of metrics, first at step 41"));
    CHECK_THAT(text, Contains("3 lines of metrics.jsonl cannot be read"));
    CHECK_THAT(text, Contains("42, saved 40"));
  }
  SECTION("no number is finite") {
    write_file(shop / "run/metrics.jsonl", "{\"step\": 1, \"loss\": null}\n");
    const std::string text = page("run");
    CHECK_THAT(text, Contains("not finite in 1 of 1 lines"));
    CHECK_THAT(text, !Contains("Training loss"));
  }
  SECTION("one line") {
    write_file(shop / "run/metrics.jsonl", "{\"step\": 1, \"tokens\": 128, \"loss\": 5}\n");
    const std::string text = page("run");
    CHECK_THAT(text, Contains("Training loss"));
    CHECK_THAT(text, Contains("no validation"));
    CHECK_THAT(text, !Contains("Validation loss"));
  }
  SECTION("an empty file, and none") {
    write_file(shop / "run/metrics.jsonl", "");
    CHECK_THAT(page("run"), Contains("no metrics of a training"));
    fs::remove(shop / "run/metrics.jsonl");
    fs::remove(shop / "run/machines.jsonl");
    const std::string text = page("run");
    CHECK_THAT(text, Contains("no metrics of a training"));
    CHECK_THAT(text, Contains("Not recorded"));
  }
  SECTION("a training that was interrupted") {
    const std::string config = fs::canonical(shop / "run/config.json");
    std::string text = read_file(config);
    text.replace(text.find("\"steps\": 40"), 11, "\"steps\": 90");
    write_file(config, text);
    CHECK_THAT(page("run"), Contains("40 of 90"));
  }
  SECTION("a model that cannot be loaded") {
    fs::remove(fs::canonical(shop / "run/model.safetensors"));
    const std::string text = page("run");
    CHECK_THAT(text, Contains("the model cannot be loaded"));
    CHECK_THAT(text, Contains("Training loss"));
  }
  SECTION("a link, and a checkpoint alone") {
    fs::create_directory_symlink(shop / "run", shop / "link");
    CHECK_THAT(page("link"), Contains("Training loss"));
    CHECK_THAT(page("run/checkpoints/40"), Contains("no metrics of a training"));
  }
  CHECK(unmatched(read_file(shop / "report.html")).empty());
}

TEST_CASE("curves of many points keep their peaks") {
  if (!has_gnuplot()) return skip("gnuplot is not installed");
  const Workshop shop;
  make_run(shop, "run");
  std::string lines;
  for (int step = 1; step <= 20000; ++step) {
    lines += "{\"step\": " + std::to_string(step) + ", \"loss\": " + (step == 7777 ? "1000" : "2") +
             "}\n";
  }
  write_file(shop / "run/metrics.jsonl", lines);
  const std::string page = page_of(shop, {shop / "run"});
  CHECK(page.size() < 200000);
  CHECK_THAT(page, Contains(">1000<"));  // on the axis
}

TEST_CASE("reports that cannot be written are refused in one line") {
  const Workshop shop;
  make_run(shop, "run");
  fs::create_directory(shop / "empty");
  const std::string out = shop / "report.html";
  refused({"report"});
  SECTION("with gnuplot") {
    if (!has_gnuplot()) return skip("gnuplot is not installed");
    CHECK_THAT(refused({"report", shop / "empty", "--out", out}),
               Contains("no complete checkpoint"));
    CHECK_THAT(refused({"report", shop / "nowhere", "--out", out}), Contains("nowhere"));
    CHECK_THAT(refused({"report", shop / "run", "--out", shop / "empty"}), Contains("empty"));
    CHECK_THAT(refused({"report", shop / "run", "--out", shop / "no/where.html"}),
               Contains("no/where.html"));
    fs::create_directory(shop / "run/results");
    write_file(shop / "run/results/bad.json", "{\"a\": }");
    CHECK_THAT(refused({"report", shop / "run", "--out", out}), Contains("bad.json"));
    CHECK_FALSE(fs::exists(out));
  }
  SECTION("without") {
    const std::string path = std::getenv("PATH");
    ::setenv("PATH", (shop / "empty").c_str(), 1);
    const std::string error = refused({"report", shop / "run", "--out", out});
    const Outcome training = regla(shop.train("second", {"--steps", "2", "--set", "report=true"}));
    ::setenv("PATH", path.c_str(), 1);
    CHECK_THAT(error, Contains("apt-get install gnuplot-nox"));
    CHECK_FALSE(fs::exists(out));
    CHECK(training.code == 0);
    CHECK_THAT(training.err, Contains("no report: [report] gnuplot is not installed"));
  }
}

TEST_CASE("links in the places of a run's notes are refused") {
  const Workshop shop;
  write_file(shop / "outside", "mine\n");
  for (const char* name : {"machines.jsonl", "gates.jsonl"}) {
    fs::create_directory(shop / name);
    fs::create_symlink(shop / "outside", shop / (std::string(name) + "/" + name));
    CHECK_THAT(refused(shop.train(name, {"--steps", "2", "--set", "report=true"})),
               Contains("in the way"));
  }
  make_run(shop, "run");
  fs::remove(shop / "run/machines.jsonl");
  fs::create_symlink(shop / "outside", shop / "run/machines.jsonl");
  CHECK_THAT(refused(shop.train("run", {"--resume", "--steps", "60"})), Contains("link"));
  CHECK(read_file(shop / "outside") == "mine\n");
}

}  // namespace regla::test
