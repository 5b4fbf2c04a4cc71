#include <cmath>

#include "storage/json_fields.h"
#include "storage/safetensors.h"
#include "tests/app/support.h"

namespace regla::test {
namespace {

namespace fs = std::filesystem;

/// Runs an analysis into `report` and returns its rows, having looked at all of its files.
Json rows_of(const Workshop& shop, const std::string& name, std::vector<std::string> more) {
  std::vector<std::string> arguments = {"analyse", name, "--out", shop / "report"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const Outcome outcome = regla(arguments);
  CAPTURE(arguments, outcome.out, outcome.err);
  REQUIRE(outcome.code == 0);
  const std::string path = shop / "report/" + name;
  const Json json = parse_json(read_file(path + ".json"), "report");
  CHECK(json["analysis"] == name);
  const std::string csv = read_file(path + ".csv");
  CHECK(static_cast<size_t>(std::count(csv.begin(), csv.end(), '\n')) == json["rows"].size() + 1);
  CHECK_THAT(read_file(path + ".gp"), Contains(name + ".csv"));
  if (has_gnuplot()) {
    CHECK(outcome.err.empty());
    const std::string svg = read_file(path + ".svg");
    CHECK_THAT(svg.substr(0, 200), Contains("<svg"));
    CHECK_THAT(svg, Contains("</svg>"));
  }
  return json["rows"];
}

void make_run(const Workshop& shop, const std::string& run, const std::string& mixer) {
  const Outcome outcome = regla(shop.train(run, {"--steps", "2", "--set", "mixer=" + mixer}));
  CAPTURE(outcome.err);
  REQUIRE(outcome.code == 0);
}

}  // namespace

TEST_CASE("analyse variance measures what Theorem 3.1 says") {
  const Workshop shop;
  make_run(shop, "run", "regla");
  const Json rows = rows_of(shop, "variance",
                            {"--run", shop / "run", "--data", shop / "data", "--dimension", "64",
                             "--sequences", "4", "--length", "32", "--hidden", "32"});
  REQUIRE(rows.size() == 4);  // normal numbers, one layer, two layers of the run
  CHECK(rows[0]["source"] == "gaussian");
  CHECK(rows[0]["identity"].get<double>() == Approx(8).epsilon(0.03));
  CHECK(rows[0]["exp_times_variance"].get<double>() == Approx(1).epsilon(0.06));
  CHECK(rows[1]["source"] == "one layer");
  CHECK(rows[3]["source"] == "run 1");
  CHECK(rows[3]["dimension"] == 16);
}

TEST_CASE("analyse gate-gradient has the closed form's values") {
  const Workshop shop;
  const Json rows = rows_of(shop, "gate-gradient", {"--refine", "0.2", "0.5", "--points", "9"});
  REQUIRE(rows.size() == 18);
  for (const Json& row : rows) {
    const double g = row["g"].get<double>(), r = row["r"].get<double>();
    CHECK(row["d_z_g"].get<double>() == Approx(2 * g * (1 - g) * ((1 - r) * g + r * (1 - g))));
    CHECK(row["d_z_r"].get<double>() == Approx(2 * g * (1 - g) * r * (1 - r)));
    CHECK(row["sigmoid"].get<double>() == Approx(g * (1 - g)));
  }
}

TEST_CASE("analyse gate-histogram trains both gates, or looks at runs") {
  const Workshop shop;
  Json rows = rows_of(shop, "gate-histogram",
                      {"--data", shop / "data", "--config", shop / "config.json", "--steps", "2",
                       "--bias", "6", "--sequences", "4"});
  REQUIRE(rows.size() == 2 * 2 * 3 * 50);  // gates, before and after, all and two layers, bins
  double sum = 0;
  for (size_t i = 0; i < 50; ++i) sum += rows[i]["fraction"].get<double>();
  CHECK(sum == Approx(1));
  CHECK(rows[49]["fraction"].get<double>() > 0.9);
  make_run(shop, "a's run", "regla");
  make_run(shop, "b", "gla");
  rows = rows_of(shop, "gate-histogram",
                 {shop / "a's run", shop / "b", "--data", shop / "data", "--sequences", "4"});
  CHECK(rows[0]["series"] == "a's run");
  CHECK(rows.back()["series"] == "b");
}

TEST_CASE("analyse saturation and inspect agree about the memory of gates") {
  const Workshop shop;
  make_run(shop, "run", "[\"regla\", \"softmax\"]");
  const Json rows = rows_of(shop, "saturation", {shop / "run", "--data", shop / "data"});
  REQUIRE(rows.size() == 2);  // the gated layer, and all
  CHECK(rows[0]["layer"] == 0);
  CHECK(rows[1]["layer"] == "all");
  const Outcome outcome =
      regla({"inspect", shop / "run", "--data", shop / "data", "--split", "validation", "--json"});
  REQUIRE(outcome.code == 0);
  const Json mixers = parse_json(outcome.out, "inspect")["mixers"];
  CHECK(mixers["layers"][0]["memory_tokens"] == rows[0]["memory_tokens"]);
  CHECK(mixers["layers"][1]["memory_tokens"].is_null());
  CHECK(mixers["memory_tokens"] == rows[1]["memory_tokens"]);
  const double log_decay = rows[0]["mean_log_decay"].get<double>();
  CHECK(rows[0]["memory_tokens"].get<double>() == Approx(-1 / log_decay));
  CHECK_THAT(regla({"inspect", shop / "run", "--data", shop / "data"}).out, Contains("n/a"));
}

TEST_CASE("without gnuplot everything but the picture is there") {
  const Workshop shop;
  const char* path = std::getenv("PATH");
  const std::string before = path ? path : "";
  ::setenv("PATH", (shop / "data").c_str(), 1);
  const Outcome outcome = regla({"analyse", "gate-gradient", "--out", shop / "report"});
  ::setenv("PATH", before.c_str(), 1);
  CHECK(outcome.code == 0);
  CHECK_THAT(outcome.out, Contains("apt-get install gnuplot-nox"));
  CHECK(fs::exists(shop / "report/gate-gradient.csv"));
  CHECK(!fs::exists(shop / "report/gate-gradient.svg"));
}

TEST_CASE("runs of any name are drawn, each as itself") {
  const Workshop shop;
  std::vector<std::string> arguments;
  for (const char* name : {"a\"b", "c\\d", "e\nf", "g,h", "#i", "it's", "x/same", "y/same"}) {
    make_run(shop, name, "regla");
    arguments.push_back(shop / name);
  }
  arguments.insert(arguments.end(), {"--data", shop / "data", "--sequences", "4"});
  const Json rows = rows_of(shop, "saturation", arguments);
  std::vector<std::string> labels;
  for (const Json& row : rows) {
    if (row["layer"] == 0) labels.push_back(row["run"].get<std::string>());
  }
  CHECK(labels ==
        std::vector<std::string>{"a_b", "c_d", "e_nf", "g_h", "_i", "it's", "same", "same (2)"});
  CHECK(parse_json(read_file(shop / "report/saturation.json"), "report")["settings"]["runs"][2] ==
        shop / "e\nf");
  if (!has_gnuplot()) return;
  // A label stands in the picture, and its line has points.
  const std::string svg = read_file(shop / "report/saturation.svg");
  for (const std::string& label : labels) {
    CHECK_THAT(svg, Contains(label.find('\'') == std::string::npos ? label + ": F" : "s: F"));
  }
}

namespace {

/// A folder with a `gnuplot` that is this script, first on PATH while the object lives.
class FakeGnuplot {
 public:
  FakeGnuplot(const Workshop& shop, const std::string& path, const std::string& script)
      : before_(std::getenv("PATH")) {
    fs::create_directories(shop / "report");
    const std::string file = shop / "report/gnuplot";
    write_file(file, "#!/bin/sh\n" + script + "\n");
    fs::permissions(file, fs::perms::owner_all);
    ::setenv("PATH", (path + ":" + before_).c_str(), 1);
  }
  ~FakeGnuplot() { ::setenv("PATH", before_.c_str(), 1); }
  FakeGnuplot(const FakeGnuplot&) = delete;
  FakeGnuplot& operator=(const FakeGnuplot&) = delete;

 private:
  std::string before_;
};

}  // namespace

TEST_CASE("a gnuplot that lies in the report's folder is not started") {
  for (const char* entry : {".", "", "./"}) {
    const Workshop shop;
    const FakeGnuplot fake(shop, entry, "touch " + shop / "started");
    const Outcome outcome = regla({"analyse", "gate-gradient", "--out", shop / "report"});
    CHECK(outcome.code == 0);
    CHECK_FALSE(fs::exists(shop / "started"));
  }
}

TEST_CASE("a gnuplot that fails says why in one line") {
  const Workshop shop;
  const FakeGnuplot fake(shop, shop / "report",
                         "i=0; while [ $i -lt 20000 ]; do echo noise; echo noise >&2; "
                         "i=$((i+1)); done; echo 'line 3: no terminal' >&2; echo >&2; exit 3");
  const std::string error = refused({"analyse", "gate-gradient", "--out", shop / "report"});
  CHECK_THAT(error, Contains("gate-gradient.gp: line 3: no terminal"));
  CHECK_FALSE(fs::exists(shop / "report/gate-gradient.svg"));
}

TEST_CASE("a report replaces links, and what the links show stays") {
  const Workshop shop;
  fs::create_directory(shop / "report");
  write_file(shop / "precious", "mine");
  for (const char* ending : {".json", ".csv", ".gp", ".svg"}) {
    fs::create_symlink(shop / "precious", shop / (std::string("report/gate-gradient") + ending));
  }
  CHECK(regla({"analyse", "gate-gradient", "--out", shop / "report"}).code == 0);
  CHECK(read_file(shop / "precious") == "mine");
  CHECK_THAT(read_file(shop / "report/gate-gradient.gp"), Contains("gate-gradient.csv"));
  if (has_gnuplot()) CHECK_THAT(read_file(shop / "report/gate-gradient.svg"), Contains("<svg"));
}

TEST_CASE("analyses that make no sense are refused in one line") {
  const Workshop shop;
  make_run(shop, "run", "regla");
  make_run(shop, "softmax", "softmax");
  const std::string out = shop / "report", data = shop / "data";
  refused({"analyse"});
  refused({"analyse", "figure-9"});
  refused({"analyse", "saturation", "--out", out, "--data", data});
  CHECK_THAT(refused({"analyse", "variance", shop / "run", "--out", out}), Contains("--data"));
  CHECK_THAT(refused({"analyse", "gate-histogram", "--out", out}), Contains("--data"));
  CHECK_THAT(refused({"analyse", "saturation", shop / "run", "--out", out}), Contains("--data"));
  CHECK_THAT(refused({"analyse", "saturation", shop / "run", "--out", out, "--data", "nowhere"}),
             Contains("does not exist"));
  CHECK_THAT(refused({"analyse", "saturation", shop / "nowhere", "--out", out, "--data", data}),
             Contains("nowhere"));
  for (const char* analysis : {"saturation", "gate-histogram"}) {
    CHECK_THAT(refused({"analyse", analysis, shop / "softmax", "--out", out, "--data", data}),
               Contains("no gated mixer"));
  }
  CHECK_THAT(refused({"analyse", "gate-gradient", "--out", shop / "config.json/x"}),
             Contains("cannot make the folder"));
  CHECK_THAT(refused({"analyse", "gate-gradient", "--out", out, "--refine", "1"}),
             Contains("between 0 and 1"));
  CHECK_THAT(refused({"analyse", "gate-gradient", "--out", out, "--refine", "nan"}),
             Contains("expected a number"));
  CHECK_THAT(refused({"analyse", "gate-histogram", "--out", out, "--data", data, "--bias", "inf"}),
             Contains("expected a number"));
  write_file(shop / "data/t.valid.txt", "");
  CHECK_THAT(refused({"analyse", "saturation", shop / "run", "--out", out, "--data", data}),
             Contains("empty file"));
  write_file(shop / "data/t.valid.txt", "short\n");
  CHECK_THAT(refused({"analyse", "saturation", shop / "run", "--out", out, "--data", data}),
             Contains("more than batch 1 x sequence 32 tokens"));
}

TEST_CASE("gates and scores that are not finite are refused") {
  const Workshop shop;
  make_run(shop, "run", "regla");
  const fs::path path = fs::canonical(shop / "run/model.safetensors");
  std::vector<NamedTensor> tensors = read_safetensors(path).tensors;
  for (NamedTensor& named : tensors) named.tensor.fill(std::nan(""));
  write_safetensors(path, tensors);
  const std::string out = shop / "report", data = shop / "data";
  CHECK_THAT(refused({"analyse", "saturation", shop / "run", "--out", out, "--data", data}),
             Contains("not a number"));
  CHECK_THAT(refused({"analyse", "variance", shop / "run", "--out", out, "--data", data,
                      "--dimension", "8", "--pairs", "10", "--length", "8"}),
             Contains("not finite"));
}

TEST_CASE("a configuration can be inspected without a run") {
  const Workshop shop;
  make_run(shop, "run", "regla");
  const auto parameters = [](const std::vector<std::string>& arguments) {
    const Outcome outcome = regla(arguments);
    CAPTURE(outcome.err);
    REQUIRE(outcome.code == 0);
    return parse_json(outcome.out, "inspect")["parameters"];
  };
  CHECK(parameters({"inspect", "--config", shop / "config.json", "--json"}) ==
        parameters({"inspect", shop / "run", "--json"}));
  CHECK(parameters({"inspect", "--config", shop / "config.json", "--set", "tokenizer=bpe", "--set",
                    "vocab_size=1000", "--json"})["parts"]["embedding"] == 1024 * 32);
  const Outcome measured =
      regla({"inspect", "--config", shop / "config.json", "--memory", "--json"});
  REQUIRE(measured.code == 0);
  const Json memory = parse_json(measured.out, "inspect")["memory"];
  CHECK(memory["moments"] == 2 * memory["weights"].get<int64_t>());
  CHECK(memory["training"].get<int64_t>() >
        memory["sequences_at_once"].get<int64_t>() * memory["per_sequence"].get<int64_t>());
  CHECK_THAT(refused({"inspect"}), Contains("--config"));
  CHECK_THAT(refused({"inspect", shop / "run", "--config", shop / "config.json"}),
             Contains("--config"));
}

}  // namespace regla::test
