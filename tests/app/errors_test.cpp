#include <sys/resource.h>

#include <cmath>

#include "storage/json_fields.h"
#include "storage/safetensors.h"
#include "tests/app/support.h"

namespace regla::test {
namespace {

namespace fs = std::filesystem;

std::string refused_with(const Workshop& shop, const std::vector<std::string>& more) {
  return refused(shop.train("run", more));
}

/// A run of no steps.
void make_run(const Workshop& shop) {
  REQUIRE(regla(shop.train("run", {"--steps", "0"})).code == 0);
}

}  // namespace

TEST_CASE("the parser's own errors are one line and exit code 2") {
  const Workshop shop;
  refused({});
  refused({"no-such-command"});
  refused({"train"});
  refused({"train", "--data", "x", "--out", "y"});
  refused({"tokenizer"});
  refused_with(shop, {"--steps", "many"});
  refused_with(shop, {"--no-such-option"});
  CHECK_FALSE(fs::exists(shop / "run"));
}

TEST_CASE("data that cannot be trained on is refused") {
  const Workshop shop;
  const auto with_data = [&](const std::string& data) {
    return refused(
        {"train", "--config", shop / "config.json", "--data", data, "--out", shop / "run"});
  };
  CHECK_THAT(with_data(shop / "nowhere"), Contains("does not exist"));
  fs::create_directory(shop / "empty");
  CHECK_THAT(with_data(shop / "empty"), Contains("got none"));
  write_file(shop / "empty/a.train.txt", "");
  CHECK_THAT(with_data(shop / "empty"), Contains("empty file"));
  fs::create_directory(shop / "no-train");
  write_file(shop / "no-train/a.valid.txt", "some text\n");
  CHECK_THAT(with_data(shop / "no-train"), Contains("train split"));
  write_file(shop / "short.txt", "one line\n");
  CHECK_THAT(with_data(shop / "short.txt"), Contains("enough lines"));
  write_file(shop / "no-train/a.train.txt", "one line\n");
  CHECK_THAT(with_data(shop / "no-train"), Contains("more than batch 4 x sequence 32 tokens"));
  CHECK_FALSE(fs::exists(shop / "run"));
}

TEST_CASE("configurations that make no sense are refused") {
  const Workshop shop;
  CHECK_THAT(refused_with(shop, {"--set", "sequence_length=0"}), Contains("sequence_length"));
  CHECK_THAT(refused_with(shop, {"--set", "batch_size=0"}), Contains("batch_size"));
  CHECK_THAT(refused_with(shop, {"--set", "heads=3"}), Contains("multiple of heads"));
  CHECK_THAT(refused_with(shop, {"--set", "micro_batches=3"}), Contains("micro_batches"));
  CHECK_THAT(refused_with(shop, {"--set", "mixer.rope=full", "mixer.feature_dim=7"}),
             Contains("feature_dim"));
  CHECK_THAT(refused_with(shop, {"--set", "hiden=3"}), Contains("nearest known key is hidden"));
  CHECK_THAT(refused_with(shop, {"--set", "vocab=128"}), Contains("257 entries"));
  CHECK_THAT(refused_with(shop, {"--set", "mixer=softmax", "--set", "carry_state=true"}),
             Contains("mixer.window"));
  CHECK_THAT(refused_with(shop, {"--set", "tokenizer=nowhere.json"}), Contains("nowhere.json"));
  CHECK_THAT(refused_with(shop, {"--set", "tokenizer=bpe", "--set", "vocab_size=10"}),
             Contains("257"));
  CHECK_THAT(refused_with(shop, {"--device", "tpu"}), Contains("expected cpu"));
  write_file(shop / "config.json", "{\"layers\": }");
  CHECK_THAT(refused_with(shop, {}), Contains("malformed JSON"));
  CHECK_FALSE(fs::exists(shop / "run"));
}

TEST_CASE("a run is not overwritten, and only itself is resumed") {
  const Workshop shop;
  CHECK_THAT(refused_with(shop, {"--resume"}), Contains("no folder"));
  make_run(shop);
  const std::string before = read_file(shop / "run/model.safetensors");
  CHECK_THAT(refused_with(shop, {}), Contains("already holds a run"));
  CHECK_THAT(refused_with(shop, {"--resume", "--set", "learning_rate=1", "--set", "hidden=64"}),
             Contains("learning_rate, hidden"));
  write_file(shop / "data/t.train.txt", some_text(160, 9));
  CHECK_THAT(refused_with(shop, {"--resume"}), Contains("another text"));
  CHECK(read_file(shop / "run/model.safetensors") == before);
  fs::create_directory(shop / "bare");
  CHECK_THAT(refused({"eval", shop / "bare", "--data", shop / "data"}),
             Contains("no complete checkpoint"));
}

TEST_CASE("damaged checkpoints are refused by everything that reads them") {
  const Workshop shop;
  make_run(shop);
  const fs::path path = fs::canonical(shop / "run/model.safetensors");
  const std::string good = read_file(path);
  const auto check_refused = [&](const std::string& bytes, const std::string& part) {
    write_file(path, bytes);
    CHECK_THAT(refused({"inspect", shop / "run"}), Contains(part));
    CHECK_THAT(refused({"generate", shop / "run", "--prompt", "a"}), Contains(part));
    CHECK_THAT(refused(shop.train("run", {"--resume"})), Contains(part));
    write_file(path, good);
  };
  check_refused(good.substr(0, good.size() / 2), "model.safetensors");
  check_refused(good.substr(0, 5), "cut off");
  check_refused(std::string(8, '\xff') + good.substr(8), "limit");
  std::string other_type = good;
  other_type.replace(other_type.find("F32"), 3, "F99");
  check_refused(other_type, "dtype");
  std::vector<NamedTensor> tensors = read_safetensors(path).tensors;
  tensors.pop_back();
  write_safetensors(path, tensors);
  CHECK_THAT(refused({"inspect", shop / "run"}), Contains("missing"));
  write_file(path, good);
  CHECK(regla({"inspect", shop / "run"}).code == 0);
}

TEST_CASE("a full disk leaves the last checkpoint") {
  const Workshop shop;
  REQUIRE(regla(shop.train("run", {"--steps", "5"})).code == 0);
  const std::string before = read_file(shop / "run/model.safetensors");
  {
    const FullDisk full(100000);
    const Outcome outcome = regla(shop.train("run", {"--steps", "8", "--resume"}));
    CHECK(outcome.code == 2);
    CHECK_THAT(outcome.err, Contains("was not saved"));
    CHECK_THAT(outcome.err, Contains("the last one is 5"));
    CHECK_THAT(refused(shop.train("other")), Contains("was not saved"));
  }
  CHECK(read_file(shop / "run/model.safetensors") == before);
  CHECK(regla(shop.train("run", {"--steps", "8", "--resume"})).code == 0);
  CHECK(regla(shop.train("other", {"--steps", "1"})).code == 0);
}

TEST_CASE("a training that diverges exits with 1 and leaves the last good checkpoint") {
  const Workshop shop;
  for (const char* every : {"checkpoint_every=0", "checkpoint_every=1"}) {
    const Outcome outcome =
        regla(shop.train(every, {"--set", "learning_rate=1e30", "--set", every}));
    CAPTURE(outcome.err);
    CHECK(outcome.code == 1);
    CHECK_THAT(outcome.err, Contains("regla: error: [train] step 2: the loss is not finite"));
    CHECK_THAT(outcome.err, Contains("in layers.0.mixer"));
    const bool saved = every == std::string("checkpoint_every=1");
    CHECK_THAT(outcome.err,
               Contains(saved ? "the last checkpoint, 1," : "the last checkpoint, 0,"));
    CHECK(regla({"inspect", shop / every}).code == 0);
  }
  // Weights beyond the largest float are noticed before they are saved.
  const Outcome beyond =
      regla(shop.train("beyond", {"--set", "learning_rate=1e39", "--set", "checkpoint_every=1"}));
  CHECK(beyond.code == 1);
  CHECK_THAT(beyond.err, Contains("step 1: the update made"));
  CHECK(regla({"generate", shop / "beyond", "--prompt", "a"}).code == 0);
}

TEST_CASE("one weight that is no number is named by all that compute with it") {
  const Workshop shop;
  const std::string run = shop / "run", ids = shop / "ids.json", out = shop / "out";
  REQUIRE(regla(shop.train("run", {"--steps", "0", "--set", "mixer=linear_relu"})).code == 0);
  write_file(ids, "[[1, 2, 3]]");
  const fs::path path = fs::canonical(shop / "run/model.safetensors");
  const std::vector<NamedTensor> sound = read_safetensors(path).tensors;
  for (const char* name : {"embed_out.weight", "layers.0.mixer.key.weight"}) {
    for (const double bad : {std::nan(""), -std::nan(""), HUGE_VAL}) {
      std::vector<NamedTensor> tensors = sound;
      for (NamedTensor& named : tensors) {
        if (named.name != name) continue;
        named.tensor = named.tensor.clone();
        named.tensor.data<float>()[5] = static_cast<float>(bad);
      }
      write_safetensors(path, tensors);
      const auto blames = Contains(std::string("not finite, nor is the weight ") + name);
      const std::vector<std::string> eval = {"eval", run, "--data", shop / "data", "--json"};
      CHECK_THAT(refused(eval), blames);
      CHECK_THAT(refused({"eval", run, "--data", shop / "data", "--weights", "bf16"}), blames);
      CHECK(regla(eval).out.empty());
      CHECK_THAT(refused({"logits", run, "--ids", ids, "--out", out}), blames);
      CHECK_FALSE(fs::exists(out));
      CHECK_THAT(refused({"generate", run, "--prompt", "a", "--temperature", "0"}), blames);
      CHECK_THAT(refused({"generate", run, "--prompt", "a", "--json"}), blames);
    }
  }
  write_safetensors(path, sound);
  CHECK(regla({"eval", run, "--data", shop / "data"}).code == 0);
}

TEST_CASE("ids that are no grid of ids are refused") {
  const Workshop shop;
  make_run(shop);
  const auto with_ids = [&](const std::string& text) {
    write_file(shop / "ids.json", text);
    return refused({"logits", shop / "run", "--ids", shop / "ids.json", "--out", shop / "out"});
  };
  CHECK_THAT(with_ids("[[1, 2], [3]]"), Contains("equal length"));
  CHECK_THAT(with_ids("[[1, 384]]"), Contains("from 0 to 383, got 384"));
  CHECK_THAT(with_ids("[[-1]]"), Contains("got -1"));
  CHECK_THAT(with_ids("[[1.5]]"), Contains("got 1.5"));
  CHECK_THAT(with_ids("[1, 2]"), Contains("list of ids"));
  CHECK_THAT(with_ids("[[]]"), Contains("list of ids"));
  CHECK_THAT(with_ids("[]"), Contains("list of lists"));
  CHECK_THAT(with_ids("[["), Contains("malformed JSON"));
  CHECK_FALSE(fs::exists(shop / "out"));
}

TEST_CASE("generation's options and evaluation's data are checked") {
  const Workshop shop;
  make_run(shop);
  CHECK_THAT(refused({"generate", shop / "run", "--prompt", "a", "--temperature", "-1"}),
             Contains("temperature"));
  CHECK_THAT(refused({"generate", shop / "run", "--prompt", "a", "--top-p", "0"}),
             Contains("top_p"));
  CHECK_THAT(refused({"generate", shop / "run", "--prompt", "a", "--seed", "-1"}),
             Contains("seed"));
  for (const char* nonsense : {"bf17", "", "f64"}) {
    CHECK_THAT(refused({"generate", shop / "run", "--prompt", "a", "--weights", nonsense}),
               Contains("--weights"));
    CHECK_THAT(refused({"eval", shop / "run", "--data", shop / "data", "--weights", nonsense}),
               Contains("--weights"));
  }
  CHECK_THAT(refused({"generate", shop / "run", "--prompt", "a", "--max-new-tokens", "-1"}),
             Contains("new tokens"));
  fs::remove(shop / "data/t.test.txt");
  CHECK_THAT(refused({"eval", shop / "run", "--data", shop / "data"}), Contains("test split"));
  CHECK_THAT(refused({"tokenizer", "encode", "--tokenizer", shop / "run/tokenizer.json"}),
             Contains("--text and --file"));
  CHECK_THAT(refused({"tokenizer", "decode", "--tokenizer", shop / "run/tokenizer.json", "--text",
                      "1 999"}),
             Contains("999"));
}

}  // namespace regla::test
