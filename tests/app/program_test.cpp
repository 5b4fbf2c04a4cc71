#include <algorithm>
#include <cmath>

#include "storage/json_fields.h"
#include "storage/safetensors.h"
#include "tests/app/support.h"
#include "text/corpus.h"

namespace regla::test {
namespace {

Json json_of(const std::vector<std::string>& arguments) {
  const Outcome outcome = regla(arguments);
  CAPTURE(arguments, outcome.err);
  REQUIRE(outcome.code == 0);
  return parse_json(outcome.out, "output");
}

void make_run(const Workshop& shop, const std::vector<std::string>& more) {
  const Outcome outcome = regla(shop.train("run", more));
  CAPTURE(outcome.err);
  REQUIRE(outcome.code == 0);
}

/// Nats per target, the scores [1, T, vocab] of each being one row.
double mean_loss(const Tensor& logits, const std::vector<int32_t>& targets) {
  const std::vector<double> scores = logits.values();
  const auto vocab = static_cast<size_t>(logits.dim(2));
  double sum = 0;
  for (size_t t = 0; t < targets.size(); ++t) {
    const double* row = scores.data() + t * vocab;
    double total = 0;
    for (size_t i = 0; i < vocab; ++i) total += std::exp(row[i]);
    sum += std::log(total) - row[targets[t]];
  }
  return sum / static_cast<double>(targets.size());
}

}  // namespace

TEST_CASE("help and version are no errors") {
  CHECK(regla({"--help"}).code == 0);
  CHECK(regla({"train", "--help"}).code == 0);
  CHECK(regla({"--version"}).code == 0);
  CHECK_THAT(regla({"--help"}).out, Contains("bench"));
}

TEST_CASE("training reports what it works on and learns") {
  const Workshop shop;
  write_file(shop / "data/t.train.txt", some_text(170, 1) + "caf\xe9 \xff\n");
  const Outcome outcome = regla(shop.train("run", {"--set", "threads=1"}));
  REQUIRE(outcome.code == 0);
  CHECK_THAT(outcome.out, Contains("single-threaded"));
  CHECK_THAT(outcome.out, Contains("t.train.txt"));
  CHECK_THAT(outcome.out, Contains("2 of them not valid UTF-8"));
  CHECK_THAT(outcome.out, Contains("processor"));
  CHECK_THAT(outcome.err, Contains("step 100/100  loss"));
  const Json valid =
      json_of({"eval", shop / "run", "--data", shop / "data", "--split", "valid", "--json"});
  CHECK(valid["bits_per_byte"].get<double>() < 4);
  // The last validation of the training scored the same.
  const std::string metrics = read_file(shop / "run/metrics.jsonl");
  const size_t last = metrics.rfind('\n', metrics.size() - 2) + 1;
  const Json line = parse_json(metrics.substr(last), "metrics");
  CHECK(line["split"] == "valid");
  CHECK(line["loss"].get<double>() == Approx(valid["loss"].get<double>()).epsilon(1e-12));
}

TEST_CASE("every split is scored once, whatever the context") {
  const Workshop shop;
  make_run(shop, {"--steps", "3"});
  const std::string text = read_file(shop / "data/t.test.txt");
  for (const char* context : {"window", "carried"}) {
    const Json result =
        json_of({"eval", shop / "run", "--data", shop / "data", "--context", context, "--json"});
    CHECK(result["split"] == "test");
    CHECK(result["context"] == context);
    CHECK(result["bytes"] == text.size());
    CHECK(result["tokens"].get<size_t>() == text.size() + 3);  // three documents end
    const double nats = result["loss"].get<double>() * result["tokens"].get<double>();
    CHECK(result["bits_per_byte"].get<double>() ==
          Approx(nats / std::log(2) / static_cast<double>(text.size())));
    const double words = result["words"].get<double>() + result["line_ends"].get<double>();
    CHECK(result["word_ppl"].get<double>() == Approx(std::exp(nats / words)));
    CHECK(result["ppl"].get<double>() == Approx(std::exp(result["loss"].get<double>())));
  }
  CHECK(json_of({"eval", shop / "run", "--data", shop / "data", "--json"})["context"] == "window");
}

TEST_CASE("logits by chunks, by chunks of one and by step agree") {
  for (const char* mixer : {"mixer=regla", "mixer=softmax"}) {
    const Workshop shop;
    make_run(shop, {"--steps", "20", "--set", mixer, "--set", "dropout=0"});
    std::string ids = "[[";
    for (int i = 0; i < 120; ++i) ids += std::to_string(i * 37 % 257) + (i == 59 ? "],[" : ",");
    ids.back() = ']';
    write_file(shop / "ids.json", ids + "]");
    const auto logits = [&](const std::vector<std::string>& more) {
      std::vector<std::string> all = {"logits",          shop / "run", "--ids",
                                      shop / "ids.json", "--out",      shop / "out.safetensors"};
      all.insert(all.end(), more.begin(), more.end());
      REQUIRE(regla(all).code == 0);
      const Tensor found = read_safetensors(shop / "out.safetensors").find("logits");
      REQUIRE(found.defined());
      CHECK(found.shape() == Shape{2, 60, 384});
      CHECK(found.dtype() == DType::F32);
      return found.values();
    };
    const auto expected = logits({});
    for (const auto& form : std::vector<std::vector<std::string>>{
             {"--form", "recurrent"}, {"--form", "step"}, {"--chunk", "7"}}) {
      const auto got = logits(form);
      double difference = 0;
      for (size_t i = 0; i < got.size(); ++i) {
        difference = std::max(difference, std::abs(got[i] - expected[i]));
      }
      CHECK(difference < 1e-4);
    }
  }
}

TEST_CASE("logits of a text of two documents are those that eval scores it with") {
  const std::string text = "\n = One = \n\n the gate decays \n\n = Two = \n\n and of a state \n";
  std::vector<int32_t> targets;
  for (const std::string_view document : documents(text)) {
    for (const char c : document) targets.push_back(static_cast<unsigned char>(c));
    targets.push_back(256);
  }
  REQUIRE(targets.size() == text.size() + 2);
  std::vector<int32_t> inputs = targets;
  std::rotate(inputs.begin(), inputs.end() - 1, inputs.end());
  std::vector<double> losses;
  for (const char* resets : {"true", "false"}) {
    const Workshop shop;
    write_file(shop / "data/t.test.txt", text);
    make_run(shop, {"--steps", "20", "--set", std::string("reset_at_documents=") + resets, "--set",
                    "sequence_length=128", "mixer.rope=full"});
    write_file(shop / "ids.json", Json::array({inputs}).dump());
    const Json scored = json_of({"eval", shop / "run", "--data", shop / "data", "--json"});
    REQUIRE(scored["tokens"] == targets.size());
    losses.push_back(scored["loss"].get<double>());
    for (const char* form : {"chunked", "recurrent", "step"}) {
      const std::string out = shop / "out.safetensors";
      REQUIRE(
          regla({"logits", shop / "run", "--ids", shop / "ids.json", "--out", out, "--form", form})
              .code == 0);
      INFO(resets << ", " << form);
      CHECK(mean_loss(read_safetensors(out).find("logits"), targets) ==
            Approx(losses.back()).epsilon(1e-6));
    }
  }
  CHECK(std::abs(losses[0] - losses[1]) > 1e-3);  // the resets count
}

TEST_CASE("a prompt is forgotten before its last end of text where training resets") {
  const Workshop shop;
  make_run(shop, {"--steps", "60", "--set", "reset_at_documents=true", "mixer.rope=full"});
  const auto continued = [&](const std::string& prompt) {
    return json_of({"generate", shop / "run", "--prompt", prompt, "--temperature", "0",
                    "--max-new-tokens", "40", "--json"});
  };
  const Json alone = continued("<|endoftext|>the"), after = continued("zzzz<|endoftext|>the");
  CHECK(after["ids"] == alone["ids"]);
  CHECK(after["ids"] != continued("zzzz the")["ids"]);
  CHECK(after["prompt_ids"].size() == alone["prompt_ids"].size() + 4);
}

TEST_CASE("a run whose keys need the whole sequence is scored, not decoded") {
  const Workshop shop;
  make_run(shop, {"--steps", "2", "--set", "mixer.key_max=sequence"});
  CHECK_THAT(refused({"generate", shop / "run", "--prompt", "the "}),
             Contains("mixer.key_max = sequence cannot be decoded"));
  CHECK(regla({"generate", shop / "run", "--prompt", "the "}).out.empty());
  write_file(shop / "ids.json", "[[1, 2, 3]]");
  const std::vector<std::string> logits = {
      "logits", shop / "run", "--ids", shop / "ids.json", "--out", shop / "out.safetensors"};
  CHECK(regla(logits).code == 0);
  std::vector<std::string> stepped = logits;
  stepped.insert(stepped.end(), {"--form", "step"});
  CHECK_THAT(refused(stepped), Contains("cannot be decoded"));
  CHECK(regla({"eval", shop / "run", "--data", shop / "data"}).code == 0);
  for (const char* benchmark : {"decode", "mixers"}) {
    CHECK_THAT(refused({"bench", benchmark, "--config", shop / "config.json", "--set",
                        "mixer.key_max=sequence"}),
               Contains("cannot be decoded"));
  }
}

TEST_CASE("generation is reproducible and takes any prompt") {
  const Workshop shop;
  make_run(shop, {"--steps", "20"});
  const std::vector<std::string> command = {"generate", shop / "run", "--prompt",         "the ",
                                            "--seed",   "3",          "--max-new-tokens", "30"};
  const std::string text = regla(command).out;
  CHECK(text.starts_with("the "));
  CHECK(regla(command).out == text);
  std::vector<std::string> other = command;
  other[5] = "4";
  CHECK(regla(other).out != text);
  std::vector<std::string> as_json = command;
  as_json.push_back("--json");
  const Json json = json_of(as_json);
  CHECK(json["prompt"] == "the ");
  CHECK(json["ids"].size() <= 30);
  CHECK(json["text"].is_string());
  CHECK(regla({"generate", shop / "run", "--prompt", "", "--max-new-tokens", "3"}).code == 0);
  CHECK(json_of({"generate", shop / "run", "--prompt", "\xff", "--max-new-tokens", "3",
                 "--json"})["prompt_ids"] == Json::array({255}));
}

TEST_CASE("a run can be scored and continued with weights in BF16") {
  const Workshop shop;
  make_run(shop, {"--steps", "40"});
  const auto scored = [&](const std::vector<std::string>& more) {
    std::vector<std::string> all = {"eval", shop / "run", "--data", shop / "data", "--json"};
    all.insert(all.end(), more.begin(), more.end());
    return json_of(all);
  };
  const Json own = scored({}), f32 = scored({"--weights", "f32"});
  const Json bf16 = scored({"--weights", "bf16"});
  CHECK(own == f32);
  CHECK(own["weights"] == "F32");
  CHECK(bf16["weights"] == "BF16");
  CHECK(bf16["loss"] != own["loss"]);
  CHECK(bf16["loss"].get<double>() == Approx(own["loss"].get<double>()).epsilon(0.01));
  const std::vector<std::string> command = {"generate",  shop / "run", "--prompt",         "the ",
                                            "--weights", "bf16",       "--max-new-tokens", "30"};
  const Outcome text = regla(command);
  CHECK(text.code == 0);
  CHECK(text.out.starts_with("the "));
  CHECK(regla(command).out == text.out);
}

TEST_CASE("a run can be inspected") {
  const Workshop shop;
  make_run(shop, {"--steps", "0"});
  const Json json = json_of({"inspect", shop / "run", "--json"});
  int64_t sum = 0;
  for (const auto& item : json["parameters"]["parts"].items()) sum += item.value().get<int64_t>();
  CHECK(json["parameters"]["total"] == sum);
  CHECK(json["configuration"]["hidden"] == 32);
  CHECK(json["flops_per_token"]["training"].get<double>() ==
        3 * json["flops_per_token"]["forward"].get<double>());
  CHECK(json["state_bytes"] == 2 * 4 * 2 * (16 * 16 + 1));
  CHECK(regla({"inspect", shop / "run"}).code == 0);
}

TEST_CASE("tokenizers are trained and used") {
  const Workshop shop;
  const std::string file = shop / "tokenizer.json";
  REQUIRE(
      regla({"tokenizer", "train", "--data", shop / "data", "--vocab-size", "300", "--out", file})
          .code == 0);
  const std::string text = "the m\xc3\xa9moire \xff of <|endoftext|>";
  const Outcome ids = regla({"tokenizer", "encode", "--tokenizer", file, "--text", text});
  REQUIRE(ids.code == 0);
  CHECK(regla({"tokenizer", "decode", "--tokenizer", file, "--text", ids.out}).out == text);
  write_file(shop / "ids",
             regla({"tokenizer", "encode", "--tokenizer", file, "--text", text, "--json"}).out);
  CHECK(regla({"tokenizer", "decode", "--tokenizer", file, "--file", shop / "ids"}).out == text);
  REQUIRE(regla(shop.train("run", {"--steps", "0", "--set", "tokenizer=" + file})).code == 0);
  CHECK(read_file(shop / "run/tokenizer.json") == read_file(file));
}

TEST_CASE("the package tokenizers gives the same ids of random texts") {
  const char* const data = std::getenv("REGLA_DATA");
  if (data == nullptr) return skip("REGLA_DATA is unset");
  const char* const python = std::getenv("REGLA_PYTHON");
  const Outcome outcome =
      Process({"/usr/bin/env", python ? python : "python3",
               std::string(REGLA_SOURCE_DIR) + "/tests/text/tokenizers_comparison.py",
               REGLA_PROGRAM, std::string(data) + "/tokenizer/20B_tokenizer.json"})
          .wait();
  if (outcome.code == 77 || outcome.code == 127) return skip(outcome.out + outcome.err);
  CAPTURE(outcome.out, outcome.err);
  CHECK(outcome.code == 0);
}

TEST_CASE("the machine is described") {
  CHECK(json_of({"devices", "--json"})["threads"].get<int>() >= 1);
  CHECK_THAT(regla({"devices"}).out, Contains("onednn"));
}

}  // namespace regla::test
