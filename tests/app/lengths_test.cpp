#include <cmath>

#include "storage/json_fields.h"
#include "tests/app/support.h"

// Splits scored by position.
namespace regla::test {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> eval(const Workshop& shop, const std::string& run,
                              const std::vector<std::string>& more) {
  std::vector<std::string> all = {"eval", shop / run, "--data", shop / "data"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

Json json_of(std::vector<std::string> arguments) {
  arguments.emplace_back("--json");
  const Outcome outcome = regla(arguments);
  CAPTURE(arguments, outcome.err);
  REQUIRE(outcome.code == 0);
  return parse_json(outcome.out, "output");
}

}  // namespace

TEST_CASE("a split is scored by position, beyond the length of training, softmax too") {
  const Workshop shop;
  for (const std::string mixer : {"regla", "softmax"}) {
    REQUIRE(regla(shop.train(mixer, {"--steps", "3", "--set", "mixer=" + mixer})).code == 0);
    const Json result = json_of(eval(shop, mixer, {"--lengths", "32,100", "--stride", "64"}));
    CAPTURE(mixer, result.dump());
    CHECK(result["run"] == shop / mixer);
    CHECK(result["split"] == "test");
    CHECK(result["trained_at"] == 32);
    CHECK(result["trained_with_carried_state"] == false);
    CHECK(result["stride"] == 64);
    const auto sequences = result["sequences"].get<int64_t>();
    CHECK(sequences > 8);
    REQUIRE(result["buckets"].size() == 2);
    const Json& far = result["buckets"][1];
    CHECK(far["begin"] == 32);
    CHECK(far["end"] == 100);
    CHECK(far["tokens"] == sequences * 68);
    CHECK(far["ppl"].get<double>() == Approx(std::exp(far["loss"].get<double>())));
  }
  // One sequence of the whole split is what a carried context scores.
  const Json whole = json_of(eval(shop, "regla", {"--context", "carried"}));
  const Json bucket =
      json_of(eval(shop, "regla", {"--lengths", whole["tokens"].dump()}))["buckets"][0];
  CHECK(bucket["tokens"] == whole["tokens"]);
  CHECK(bucket["loss"].get<double>() == Approx(whole["loss"].get<double>()).epsilon(1e-6));
}

TEST_CASE("positions are printed as a table, written and drawn") {
  const Workshop shop;
  REQUIRE(regla(shop.train("it's", {"--steps", "1"})).code == 0);
  const std::vector<std::string> arguments =
      eval(shop, "it's", {"--lengths", "16,32,64", "--out", shop / "out"});
  const Outcome table = regla(arguments);
  CAPTURE(table.out, table.err);
  REQUIRE(table.code == 0);
  CHECK_THAT(table.out, Contains("tokens before          tokens scored, loss, perplexity\n") &&
                            Contains("32 to 63 ") && Contains("numbers "));
  const Json written = parse_json(read_file(shop / "out/lengths.json"), "report");
  CHECK(written["analysis"] == "lengths");
  CHECK(written["rows"].size() == 3);
  CHECK_THAT(read_file(shop / "out/lengths.csv"), Contains("begin,end,tokens,loss,ppl\n0,16,"));
  const bool is_drawn = fs::exists(shop / "out/lengths.svg");
  CHECK_THAT(table.out, Contains(is_drawn ? "out/lengths.svg" : "gnuplot is not installed"));
  if (is_drawn) CHECK_THAT(read_file(shop / "out/lengths.svg"), Contains("it's"));
  CHECK(json_of(arguments)["buckets"] == written["rows"]);  // nothing but JSON is printed
}

TEST_CASE("lengths that make no sense are refused in one line") {
  const Workshop shop;
  REQUIRE(regla(shop.train("run", {"--steps", "0"})).code == 0);
  const auto refusal = [&](const std::vector<std::string>& more) {
    return refused(eval(shop, "run", more));
  };
  CHECK_THAT(refusal({"--lengths", "64,32"}), Contains("rise, got 32 behind 64"));
  CHECK_THAT(refusal({"--lengths", "64,,128"}), Contains("--lengths") && Contains("\"\""));
  CHECK_THAT(refusal({"--lengths", "0"}), Contains("--lengths") && Contains("at least 1"));
  CHECK_THAT(refusal({"--lengths", "12k"}), Contains("\"12k\""));
  CHECK_THAT(refusal({"--lengths", "32,900000"}), Contains("at least 900000 tokens"));
  CHECK_THAT(refusal({"--lengths", "32", "--stride", "0"}), Contains("--stride"));
  CHECK_THAT(refusal({"--lengths", "32", "--context", "window"}), Contains("no --context"));
  CHECK_THAT(refusal({"--stride", "32"}), Contains("need --lengths"));
  CHECK_THAT(refusal({"--out", shop / "out"}), Contains("need --lengths"));
  CHECK_THAT(refused({"eval", shop / "run", "--tasks", "piqa", "--task-data", shop / "data",
                      "--lengths", "32"}),
             Contains("--lengths beside --data"));
  write_file(shop / "file", "");
  CHECK_THAT(refusal({"--lengths", "32", "--out", shop / "file"}), Contains("cannot make"));
}

}  // namespace regla::test
