#include <sys/stat.h>

#include <cstdlib>

#include "storage/json_fields.h"
#include "storage/safetensors.h"
#include "tests/app/support.h"
#include "tests/support.h"

// Models that come from elsewhere, and that go there.
namespace regla::test {
namespace {

namespace fs = std::filesystem;

const fs::path kFixtures = fs::path(REGLA_SOURCE_DIR) / "tests/fixtures/gpt_neox";

std::string fixture(const std::string& name) { return (kFixtures / name).string(); }

/// Runs the program, which has to do what it is asked. Returns what it says.
std::string done(const std::vector<std::string>& arguments) {
  const Outcome outcome = regla(arguments);
  CAPTURE(arguments, outcome.err);
  REQUIRE(outcome.code == 0);
  return outcome.out;
}

Tensor logits_of(const Workshop& shop, const std::string& run, const std::string& ids) {
  done({"logits", run, "--ids", ids, "--out", shop / "logits"});
  return read_safetensors(shop / "logits").find("logits")->clone();
}

bool same_file(const std::string& a, const std::string& b) { return read_file(a) == read_file(b); }

/// A run of softmax attention that has seen a few updates.
void train_softmax(const Workshop& shop, const std::string& run,
                   const std::vector<std::string>& set) {
  std::vector<std::string> more = {"--steps", "3", "--set", "mixer=softmax"};
  more.insert(more.end(), set.begin(), set.end());
  done(shop.train(run, more));
}

}  // namespace

TEST_CASE("an imported model is a run: it is inspected, scored, generated from and trained") {
  const Workshop shop;
  const std::string run = shop / "run";
  const std::string said = done({"import", fixture("older_f16"), "--out", run});
  CHECK_THAT(said, Contains("passed over            6 buffers"));
  CHECK_THAT(said, Contains("weights                F16"));
  CHECK_THAT(said, Contains("sequential blocks"));
  CHECK(parse_json(done({"inspect", run, "--json"}), "test")["configuration"]["hidden"] == 32);
  done({"eval", run, "--data", shop / "data"});
  done({"generate", run, "--prompt", "the", "--max-new-tokens", "3"});
  // What is no part of the weights may still be chosen, by a file that says only that, too.
  write_file(shop / "more.json", R"({"learning_rate": 0.001, "batch_size": 2, "steps": 4,
      "sequence_length": 16, "dropout": 0.1, "eval_every": 0, "log_every": 1})");
  const std::vector<std::string> train = {"train", "--resume", "--out",
                                          run,     "--data",   shop / "data"};
  const auto with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> all = train;
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  for (const char* set :
       {"hidden=64", "mixer.rope=full", "tokenizer=byte", "vocab=512", "parallel_residual=true"}) {
    const std::string key = std::string(set).substr(0, std::string(set).find('='));
    CHECK_THAT(refused(with({"--set", set})), Contains(key));
  }
  done(with({"--config", shop / "more.json", "--steps", "2"}));
  const Json config = parse_json(read_file(run + "/config.json"), "test");
  CHECK(config["learning_rate"] == 0.001);
  CHECK(config["sequence_length"] == 16);
  CHECK(config["mixer"]["rope"] == "partial");
  // Begun, it is a run like any other.
  CHECK_THAT(refused(with({"--set", "learning_rate=0.1"})), Contains("learning_rate"));
  done(with({"--steps", "4"}));
  CHECK(parse_json(read_file(run + "/state.json"), "test")["step"] == 4);
}

TEST_CASE("what is exported and imported again is the same to the bit") {
  const Workshop shop;
  write_file(shop / "ids.json", "[[1, 2, 3, 4, 5, 6], [250, 9, 9, 8, 7, 0]]");
  for (const char* name : {"parallel_f32", "parallel_bf16_tied"}) {
    const std::string at = shop / name;
    done({"import", fixture(name), "--out", at});
    CHECK_THAT(done({"export", at, "--out", at + "-there"}), Contains("GPT-NeoX"));
    done({"import", at + "-there", "--out", at + "-again"});
    for (const char* file : {"model.safetensors", "tokenizer.json"}) {
      CHECK(same_file(at + "/" + file, at + "-again/" + file));
    }
    CHECK(same_bits(logits_of(shop, at, shop / "ids.json"),
                    logits_of(shop, at + "-again", shop / "ids.json")));
    done({"export", at + "-again", "--out", at + "-there-again"});
    for (const char* file : {"model.safetensors", "config.json", "tokenizer.json",
                             "tokenizer_config.json", "generation_config.json"}) {
      CHECK(same_file(at + "-there/" + file, at + "-there-again/" + file));
    }
  }
  // What is no GPT-NeoX goes as it is.
  done(shop.train("regla", {"--steps", "2"}));
  const std::string own = shop / "own";
  CHECK_THAT(done({"export", shop / "regla", "--out", own}),
             Contains("this project's: layer 0 is regla, not softmax"));
  CHECK_FALSE(fs::exists(own + "/optimizer.safetensors"));
  done({"import", own, "--out", shop / "regla-again"});
  for (const char* file : {"model.safetensors", "config.json", "tokenizer.json"}) {
    CHECK(same_file(shop / (std::string("regla/") + file), own + "/" + file));
    CHECK(same_file(own + "/" + file, shop / (std::string("regla-again/") + file)));
  }
  CHECK_THAT(refused({"import", own, "--out", shop / "x", "--sequential"}),
             Contains("are for folders of GPT-NeoX"));
}

TEST_CASE("transformers computes the same of what is exported") {
  const Workshop shop;
  write_file(shop / "ids.json",
             "[[1, 2, 3, 4, 5, 6, 7, 101, 32], [250, 9, 9, 8, 7, 66, 65, 1, 0]]");
  const char* const python = std::getenv("REGLA_PYTHON");
  std::vector<std::string> compare = {"/usr/bin/env", python ? python : "python3",
                                      fixture("../../transformers/compare.py")};
  const auto add = [&](const std::string& name) {
    const std::string folder = shop / (name + "-there");
    done({"export", shop / name, "--out", folder});
    fs::copy_file(shop / "ids.json", folder + "/ids.json");
    done({"logits", shop / name, "--ids", shop / "ids.json", "--out",
          folder + "/logits.safetensors"});
    write_file(folder + "/generated.json",
               done({"generate", shop / name, "--prompt", "the state decays", "--temperature", "0",
                     "--max-new-tokens", "24", "--json"}));
    compare.push_back(folder);
  };
  train_softmax(shop, "sequential", {});
  train_softmax(
      shop, "parallel",
      {"parallel_residual=true", "mixer.rope=partial", "gelu=tanh", "layer_norm_epsilon=1e-6"});
  train_softmax(
      shop, "tied",
      {"tie_embeddings=true", "mixer.rope=partial", "mixer.rotary_pct=0.5", "mixer.rope_base=500"});
  train_softmax(shop, "unturned", {"mixer.rope=none"});
  for (const char* name : {"sequential", "parallel", "tied", "unturned"}) add(name);
  for (const char* name :
       {"sequential_f16_shards", "parallel_bf16_tied", "sequential_f32_tied_no_bias_shards"}) {
    done({"import", fixture(name), "--out", shop / name});
    add(name);
  }
  const Outcome outcome = Process(compare).wait();
  if (outcome.code == 77 || outcome.code == 127) return skip(outcome.out + outcome.err);
  CAPTURE(outcome.out, outcome.err);
  CHECK(outcome.code == 0);
}

TEST_CASE("a linearised model says what became of its weights and is trained like any other") {
  const Workshop shop;
  done({"import", fixture("parallel_f32"), "--out", shop / "there"});
  const auto linearise = [&](const std::string& out, const std::vector<std::string>& more) {
    std::vector<std::string> all = {"linearise", shop / "there", "--out", shop / out};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const std::string said = done(linearise("regla", {"--mixer", "regla"}));
  CHECK_THAT(said, Contains("in place of softmax attention in the layers 0, 1 of 0 to 1"));
  CHECK_THAT(said, Contains("kept                   22,480 parameters"));
  CHECK_THAT(said, Contains("replaced               8,448 parameters"));
  CHECK_THAT(said, Contains("  mixer.gate           2,112"));
  const std::string kept = done(linearise(
      "hybrid", {"--mixer", "gla", "--layers", "alternate", "--keep-qkv", "--seed", "4"}));
  CHECK_THAT(kept, Contains("replaced               0 parameters"));
  const auto mixers = [&](const std::string& run) {
    return parse_json(read_file(shop / (run + "/config.json")), "test")["mixer"];
  };
  CHECK(mixers("regla")["rope"] == "none");
  CHECK(mixers("hybrid")[0]["type"] == "softmax");
  CHECK(mixers("hybrid")[1]["type"] == "gla");
  CHECK(mixers("hybrid")[1]["rope"] == "partial");
  done(linearise("other", {"--mixer", "regla", "--keep-qkv", "--set", "rope=full", "gate_bias=3"}));
  CHECK(mixers("other")["rope"] == "full");
  CHECK(mixers("other")["gate_bias"] == 3);
  for (const char* run : {"regla", "hybrid"}) {
    done({"train", "--resume", "--out", shop / run, "--data", shop / "data", "--set", "steps=2",
          "batch_size=2", "sequence_length=16"});
    done({"generate", shop / run, "--prompt", "the", "--max-new-tokens", "2"});
    CHECK(parse_json(read_file(shop / (std::string(run) + "/state.json")), "test")["step"] == 2);
  }
  CHECK_THAT(refused(linearise("regla", {"--mixer", "regla"})), Contains("already holds a run"));
  CHECK_THAT(refused(linearise("x", {"--mixer", "llama"})), Contains("--mixer"));
  CHECK_THAT(refused(linearise("x", {})), Contains("--mixer"));
  CHECK_THAT(refused(linearise("x", {"--mixer", "gla", "--layers", "2"})),
             Contains("numbers from 0 to 1"));
  CHECK_THAT(refused(linearise("x", {"--mixer", "gla", "--set", "gate_axes=key"})),
             Contains("gate_axis"));
  CHECK_THAT(refused({"linearise", shop / "regla", "--mixer", "gla", "--out", shop / "x"}),
             Contains("softmax attention in layer 0, got regla"));
  CHECK_FALSE(fs::exists(shop / "x"));
}

TEST_CASE("folders that cannot be imported are refused in one line and leave no run") {
  const Workshop shop;
  const std::string folder = shop / "there", out = shop / "run";
  fs::copy(kFixtures / "parallel_f32", folder, fs::copy_options::recursive);
  const auto refusal = [&](const std::vector<std::string>& more = {}) {
    std::vector<std::string> all = {"import", folder, "--out", out};
    all.insert(all.end(), more.begin(), more.end());
    const std::string line = refused(all);
    CHECK_FALSE(fs::exists(out));
    return line;
  };
  const std::string tokenizer = read_file(folder + "/tokenizer.json");
  const auto with_tokenizer = [&](const std::string& from, const std::string& to) {
    std::string text = tokenizer;
    REQUIRE(text.find(from) != std::string::npos);
    write_file(folder + "/tokenizer.json", text.replace(text.find(from), from.size(), to));
    const std::string line = refusal();
    write_file(folder + "/tokenizer.json", tokenizer);
    return line;
  };
  CHECK_THAT(with_tokenizer("\"BPE\"", "\"Unigram\""), Contains("a BPE model, got \"Unigram\""));
  CHECK_THAT(with_tokenizer("{", "["), Contains("[tokenizer] expected JSON"));
  fs::remove(folder + "/tokenizer.json");
  CHECK_THAT(refusal(), Contains("tokenizer.json"));
  REQUIRE(::mkfifo((folder + "/tokenizer.json").c_str(), 0600) == 0);
  CHECK_THAT(refusal(), Contains("expected a regular file"));
  fs::remove(folder + "/tokenizer.json");
  write_file(folder + "/tokenizer.json", tokenizer);
  CHECK_THAT(refusal({"--rotary-pct", "0.2"}), Contains("got 3 of 16"));
  CHECK_THAT(refusal({"--rotary-pct", "nan"}), Contains("--rotary-pct"));
  Json json = parse_json(read_file(folder + "/config.json"), "test");
  json["model_type"] = "llama";
  write_file(folder + "/config.json", json.dump());
  CHECK_THAT(refusal(), Contains("got \"llama\""));
  write_file(folder + "/config.json", "");
  CHECK_THAT(refusal(), Contains("malformed JSON"));
  fs::remove(folder + "/config.json");
  CHECK_THAT(refusal(), Contains("config.json"));
  CHECK_THAT(refused({"import", shop / "nowhere", "--out", out}), Contains("nowhere"));
  CHECK_THAT(refused({"import", "--out", out}), Contains("folder"));
  // Nothing is written over.
  done({"import", fixture("parallel_f32"), "--out", out});
  CHECK_THAT(refused({"import", fixture("parallel_f32"), "--out", out}), Contains("already holds"));
  done({"export", out, "--out", shop / "new"});
  CHECK_THAT(refused({"export", out, "--out", shop / "new"}), Contains("is in the way"));
  CHECK_THAT(refused({"export", out, "--out", shop / "config.json"}),
             Contains("cannot make the folder"));
  CHECK_THAT(refused({"export", shop / "nowhere", "--out", shop / "x"}), Contains("nowhere"));
}

TEST_CASE("a full disk leaves neither half a run nor half a model") {
  const Workshop shop;
  const auto cramped = [](const std::vector<std::string>& arguments) {
    const Outcome outcome = Process(command(arguments), [] {
                              const rlimit small = {40'000, 40'000};
                              ::setrlimit(RLIMIT_FSIZE, &small);
                            }).wait();
    CHECK(outcome.code == 2);
    CHECK(outcome.err.find('\n') + 1 == outcome.err.size());
    return outcome.err;
  };
  const std::vector<std::string> import = {"import", fixture("parallel_f32"), "--out",
                                           shop / "run"};
  CHECK_THAT(cramped(import), Contains("was not saved"));
  CHECK_THAT(refused({"inspect", shop / "run"}), Contains("no complete checkpoint"));
  done(import);
  CHECK_THAT(cramped({"export", shop / "run", "--out", shop / "there"}),
             Contains("model.safetensors"));
  CHECK_FALSE(fs::exists(shop / "there/config.json"));
  CHECK_THAT(cramped({"linearise", shop / "run", "--mixer", "gla", "--out", shop / "gla"}),
             Contains("was not saved"));
}

TEST_CASE("a checkpoint is read otherwise than it says only when asked to, with a warning") {
  const Workshop shop;
  const Outcome plain = regla({"import", fixture("parallel_f32"), "--out", shop / "plain"});
  CHECK(plain.err.empty());
  const Outcome other = regla({"import", fixture("parallel_f32"), "--out", shop / "other",
                               "--sequential", "--rotary-pct", "1"});
  REQUIRE(other.code == 0);
  CHECK_THAT(other.err, Contains("regla: warning: blocks are sequential; the checkpoint was made"));
  CHECK_THAT(other.err, Contains("regla: warning: 16 of 16 elements of a head turn; the checkpoint "
                                 "was made for 4 of 16 elements of a head"));
  const Json config = parse_json(read_file(shop / "other/config.json"), "test");
  CHECK(config["parallel_residual"] == false);
  CHECK(config["mixer"]["rope"] == "full");
  CHECK(same_file(shop / "plain/model.safetensors", shop / "other/model.safetensors"));
}

}  // namespace regla::test
