// Benchmarks check their results, measure, and say what was wrong with what they were given.

#include <nlohmann/json.hpp>

#include "tests/app/support.h"

namespace regla::test {
namespace {

using Json = nlohmann::json;
using Strings = std::vector<std::string>;

/// The arguments of a benchmark of a tiny model.
Strings tiny(const std::string& name, const Strings& more = {}) {
  Strings all = {"bench", name, "--repeats", "2"};
  for (const char* key : {"layers=2", "hidden=32", "heads=2", "mlp=48", "vocab=256",
                          "sequence_length=32", "batch_size=2"}) {
    all.insert(all.end(), {"--set", key});
  }
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

Json measured(const std::string& name, Strings more = {}) {
  more.push_back("--json");
  const Outcome outcome = regla(tiny(name, more));
  CAPTURE(name, outcome.err);
  REQUIRE(outcome.code == 0);
  const Json report = Json::parse(outcome.out);
  CHECK(report["benchmark"] == name);
  CHECK(report["config"]["hidden"] == 32);
  CHECK(report["memory_gb_per_s"].get<double>() > 0);
  // Before, between and after: rows, or the two rounds of rows that are timed in turn.
  const size_t rows = report["results"].size();
  const bool has_texts = name == "decode";  // three of each length, in turn, behind five rows
  const size_t parts = name == "lengths" ? 2
                       : name == "step"  ? 1
                       : has_texts       ? 5 + (rows - 5) / 3
                                         : rows;
  CHECK(report["product_gflops_trials"].size() == parts + 1);
  for (const Json& row : report["results"]) {
    CHECK(row["fastest_s"].get<double>() > 0);
    CHECK(row["fastest_s"] <= row["quartiles_s"][0]);
    CHECK(row["quartiles_s"][0] <= row["median_s"]);
    CHECK(row["median_s"] <= row["slowest_s"]);
    if (name == "step" && row["name"] != "update") continue;
    CHECK(row["peak_memory_bytes"].get<int64_t>() > (has_texts ? 50000 : 1000000));
  }
  return report;
}

Json row_of(const Json& report, const std::string& name) {
  for (const Json& row : report["results"]) {
    if (row["name"] == name) return row;
  }
  FAIL("no row " << name);
  return report;
}

}  // namespace

TEST_CASE("updates are measured, and take no memory from the system after the first") {
  for (const char* mixer : {"mixer=regla", "mixer=softmax", "mixer=gla"}) {
    const Json row = row_of(measured("train", {"--set", mixer}), "update");
    CHECK(row["system_bytes"] == 0);
    CHECK(row["allocated_bytes"].get<int64_t>() > 0);
    CHECK(row["gflops"].get<double>() > 0);
    CHECK(row["tokens_per_s"].get<double>() == Approx(2 * 32 / row["median_s"].get<double>()));
  }
}

TEST_CASE("the operations of an update are those of docs/flops.md") {
  const Json row = row_of(measured("train", {"--set", "mixer=softmax"}), "update");
  // Two layers of four D x D projections and an MLP, the head, attention over (T + 1) / 2 tokens.
  const double matrices = 2 * (4 * 32 * 32 + 2 * 32 * 48) + 256 * 32;
  const double attention = 2 * 2 * 2 * (16 + 16) * 16.5;
  CHECK(row["gflops"].get<double>() * row["median_s"].get<double>() * 1e9 ==
        Approx(64 * (6 * matrices + 3 * attention)));
}

TEST_CASE("an update is measured by kernels, in any precision") {
  for (const char* precision : {"fp32", "tf32", "bf16"}) {
    const Json report = measured("step", {"--set", std::string("precision=") + precision});
    CHECK(report["config"]["precision"] == precision);
    CHECK(report.contains("fp32_product_gflops") == (std::string(precision) != "fp32"));
    const double all = row_of(report, "all kernels")["median_s"];
    double sum = 0, flops = 0;
    int64_t calls = 0;
    for (const Json& row : report["results"]) {
      if (row["name"] == "update" || row["name"] == "all kernels") continue;
      sum += row["median_s"].get<double>();
      calls += row["calls"].get<int64_t>();
      if (row.contains("gflops")) {
        flops += row["gflops"].get<double>() * 1e9 * row["median_s"].get<double>();
      }
    }
    CHECK(sum == Approx(all).epsilon(0.5));  // of medians
    CHECK(calls == row_of(report, "all kernels")["calls"]);
    CHECK(row_of(report, "adamw")["calls"] == 1);
    // The products of the layers, forward and backward: a part of all operations.
    const Json update = row_of(report, "update");
    const double matrices = 2 * (6 * 32 * 32 + 2 * 32 * 48);
    CHECK(flops == Approx(64 * 6 * matrices).epsilon(1e-6));
    CHECK(flops < update["gflops"].get<double>() * 1e9 * update["median_s"].get<double>());
  }
}

TEST_CASE("decoding is measured against the bandwidth of reading") {
  const Json report = measured("decode", {"--longest", "64"});
  const Json row = row_of(report, "next token");
  CHECK(row["of_bandwidth"].get<double>() ==
        Approx(row["gb_per_s"].get<double>() / report["memory_gb_per_s"].get<double>()));
  // Half the bytes, but for biases and norms.
  const Json halved = row_of(report, "next token, bf16 weights");
  const auto bytes = [](const Json& r) {
    return r["gb_per_s"].get<double>() * r["median_s"].get<double>();
  };
  CHECK(bytes(halved) < 0.6 * bytes(row));
  CHECK(bytes(row) == Approx(32 * bytes(row_of(report, "reading weights"))));
  CHECK(bytes(halved) == Approx(32 * bytes(row_of(report, "reading bf16 weights"))));
  CHECK(row_of(report, "prompt")["tokens_per_s"].get<double>() > 0);
}

TEST_CASE("texts of one mixer alone are measured, and drawn without a crossing") {
  const Workshop shop;
  const std::string folder = shop / "figure";
  const Outcome outcome =
      regla(tiny("decode", {"--longest", "128", "--only", "softmax", "--out", folder, "--json"}));
  REQUIRE(outcome.code == 0);
  const Json report = Json::parse(outcome.out);
  CHECK_THAT(outcome.err, Contains("softmax T=128"));
  CHECK(report["results"].size() == 2);
  CHECK(row_of(report, "softmax T=128")["tokens_per_s"].get<double>() > 0);
  CHECK_FALSE(report.contains("softmax_slower_from"));
  CHECK(Json::parse(read_file(folder + "/decode.json"))["rows"].size() == 2);
}

TEST_CASE("texts of three mixers are measured by their length, and drawn") {
  const Workshop shop;
  const std::string folder = shop / "figure";
  const Json report = measured("decode", {"--longest", "512", "--out", folder});
  const auto row = [&](const std::string& mixer, int64_t tokens) {
    return row_of(report, mixer + " T=" + std::to_string(tokens));
  };
  for (const int64_t tokens : {64, 128, 256, 512}) {
    for (const char* mixer : {"softmax", "fast_decay", "regla"}) {
      const Json text = row(mixer, tokens);
      CHECK(text["tokens_per_s"].get<double>() ==
            Approx(2 * static_cast<double>(tokens) / text["median_s"].get<double>()));
    }
    // What ReGLA remembers, and all memory with it, is the same at any length, to the byte.
    for (const char* mixer : {"fast_decay", "regla"}) {
      CHECK(row(mixer, tokens)["state_bytes"] == row(mixer, 64)["state_bytes"]);
      CHECK(row(mixer, tokens)["peak_memory_bytes"] == row(mixer, 64)["peak_memory_bytes"]);
    }
    // Two layers, two sequences, 5 tokens before, keys and values of 32 numbers.
    CHECK(row("softmax", tokens)["state_bytes"] == 2 * 2 * (5 + tokens) * 2 * 32 * 4);
  }
  CHECK(row("softmax", 512)["peak_memory_bytes"] > row("softmax", 64)["peak_memory_bytes"]);
  CHECK(report["softmax_slower_from"].contains("regla"));
  const Json figure = Json::parse(read_file(folder + "/decode.json"));
  CHECK(figure["rows"].size() == 12);
  CHECK(figure["rows"][0]["mixer"] == "fast_decay");  // each mixer's together
  CHECK(figure["rows"][3]["seconds"] == row("fast_decay", 512)["median_s"]);
  CHECK(figure["rows"][11]["seconds"] == row("softmax", 512)["median_s"]);
  CHECK(figure["summary"]["softmax_slower_from"] == report["softmax_slower_from"]);
  CHECK_THAT(read_file(folder + "/decode.csv"), Contains("mixer,tokens,seconds,seconds_per_token"));
  CHECK_THAT(read_file(folder + "/decode.gp"), Contains("\"softmax\"") || Contains("'softmax'"));
  // Repeats of long texts are as many as there is time for.
  CHECK(row("regla", 64)["repeats"] == 2);
  CHECK_THAT(refused(tiny("decode", {"--longest", "63"})), Contains("--longest"));
}

TEST_CASE("mixers are measured beside softmax attention") {
  const Json report = measured("mixers", {"--set", "mixer=gla"});
  row_of(report, "gla forward");
  row_of(report, "gla step by step");
  row_of(report, "softmax forward+backward");
  const Json lengths = measured("lengths", {"--longest", "1024"});
  row_of(lengths, "regla T=512");
  row_of(lengths, "softmax T=1024");
  CHECK(lengths["softmax_slower_from"].contains("regla"));
}

TEST_CASE("recurrences are measured over segments, with states and without") {
  const Json report = measured("recurrences", {"--longest", "2048"});
  for (const char* name : {"regla", "value", "value with states", "gla", "scalar", "plain",
                           "fast_decay", "delta_rule", "softmax_attention"}) {
    for (const char* length : {" T=1024", " T=2048"}) {
      row_of(report, std::string(name) + length + " forward");
      row_of(report, std::string(name) + length + " both");
    }
  }
  // States are F32, read and written: two heads of 16 x 16 for each of two segments.
  const auto bytes = [&](const char* name) {
    const Json row = row_of(report, name);
    return row["gb_per_s"].get<double>() * row["median_s"].get<double>() * 1e9;
  };
  CHECK(bytes("value with states T=1024 forward") - bytes("value T=1024 forward") ==
        Approx(2 * 4 * 2 * 2 * 16 * 16));
}

TEST_CASE("the parts of an update are measured") {
  const Json report = measured("ops");
  for (const char* name :
       {"linear 32->48 y", "linear 48->32 d_weight", "layer_norm", "gelu", "dropout",
        "cross_entropy with head", "adamw", "recurrence regla", "recurrence plain",
        "recurrence fast_decay", "recurrence gla", "softmax_attention"}) {
    row_of(report, name);
  }
  CHECK(measured("ops", {"--only", "gelu"})["results"].size() == 1);
}

TEST_CASE("a benchmark takes a configuration file and prints a table") {
  const Workshop shop;
  const Strings command = {"bench", "train", "--config", shop / "config.json", "--repeats", "1"};
  const Outcome outcome = regla(command);
  CHECK(outcome.code == 0);
  CHECK_THAT(outcome.out, Contains("update") && Contains("fp32 product GFLOP/s"));
}

TEST_CASE("without a configuration file the small model of configs/bench is measured") {
  // `tiny` makes both smaller by the same keys.
  const Json without = measured("train");
  const Json with = measured(
      "train", {"--config", std::string(REGLA_SOURCE_DIR) + "/configs/bench/small_regla.json"});
  CHECK(without["config"] == with["config"]);
}

TEST_CASE("wrong arguments of a benchmark are one line") {
  CHECK_THAT(refused(tiny("train", {"--set", "headz=2"})), Contains("heads"));
  CHECK_THAT(refused(tiny("train", {"--set", "dtype=f64"})),
             Contains("precision fp32, tf32 or bf16"));
  CHECK_THAT(refused({"bench", "ops", "--repeats", "0"}), Contains("at least 1 repetition"));
  CHECK_THAT(refused(tiny("lengths", {"--longest", "700"})), Contains("--longest"));
  CHECK_THAT(refused({"bench", "train", "--config", "/nonexistent.json"}),
             Contains("/nonexistent.json"));
  CHECK_THAT(refused(tiny("ops", {"--only", "nothing"})), Contains("\"nothing\""));
  refused({"bench"});
  refused({"bench", "nothing"});
  refused({"bench", "train", "--batch", "2"});
}

}  // namespace regla::test
