#include "training/configuration.h"

#include <filesystem>
#include <fstream>
#include <set>
#include <vector>

#include "core/check.h"
#include "storage/files.h"
#include "tests/matchers.h"
#include "tests/temporary_folder.h"

namespace regla {
namespace {

std::string error_of(const std::string& text) {
  try {
    from_json(text);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TrainingConfig with(const std::string& text, const std::vector<std::string>& assignments) {
  std::string config = text;
  for (const std::string& assignment : assignments) config = apply_override(config, assignment);
  return from_json(config);
}

std::string error_with(const std::string& text, const std::string& assignment) {
  try {
    with(text, {assignment});
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("an empty configuration is the defaults") { CHECK(from_json("{}") == TrainingConfig{}); }

TEST_CASE("a mixer is a name, an object or a list") {
  CHECK(from_json(R"({"mixer": "softmax"})").model.mixer[0].type == MixerType::Softmax);
  const auto object = from_json(R"({"mixer": {"gate_axis": "key", "norm_epsilon": 0}})").model;
  REQUIRE(object.mixer.size() == 1);
  CHECK(object.mixer[0].type == MixerType::Regla);
  CHECK(object.mixer[0].gate_axis == GateAxis::Key);
  CHECK(object.mixer[0].norm_epsilon == 0);
  const auto hybrid =
      from_json(R"({"layers": 2, "mixer": ["softmax", {"type": "regla", "rope": "none"}]})").model;
  CHECK(hybrid.mixer_of(0).type == MixerType::Softmax);
  CHECK(hybrid.mixer_of(1).rope == Rope::None);
  CHECK_THROWS_AS(hybrid.mixer_of(2), Error);
}

TEST_CASE("queries and keys turn by default where scores then depend on distances") {
  const auto turns = [](const std::string& mixer) {
    return from_json(R"({"mixer": )" + mixer + "}").resolved().model.mixer[0].rope;
  };
  for (const std::string_view name : names_of(MixerType{})) {
    INFO(name);
    const bool by_distance = name == "softmax" || name == "fast_decay" || name == "gla";
    CHECK(turns("\"" + std::string(name) + "\"") == (by_distance ? Rope::Full : Rope::None));
  }
  CHECK(turns(R"({"feature_map": "identity"})") == Rope::Full);
  CHECK(turns(R"({"type": "gla", "feature_map": "elu1"})") == Rope::None);
  CHECK(turns(R"({"rope": "full"})") == Rope::Full);
  CHECK(turns(R"({"type": "gla", "rope": "none"})") == Rope::None);
}

TEST_CASE("a mixer's name sets its fields, and what is given beside it wins") {
  const auto mixer_of = [](const std::string& text) { return from_json(text).model.mixer[0]; };
  CHECK(mixer_of(R"({"mixer": "gla"})") == preset(MixerType::Gla));
  const MixerConfig gla = mixer_of(R"({"mixer": {"gate_rank": 8, "type": "gla"}})");
  CHECK(gla.gate_rank == 8);
  CHECK(gla.gate_temperature == 16);
  CHECK(gla.feature_map == FeatureMap::Identity);
  CHECK(gla.output_gate == OutputGate::Swish);
  CHECK(with("{}", {"mixer=hedgehog", "mixer.hedgehog_form=joint2x"}).model.mixer[0].feature_map ==
        FeatureMap::Hedgehog);
  for (const std::string_view name : names_of(MixerType{})) {
    const auto config = from_json(R"({"mixer": ")" + std::string(name) + R"("})");
    CHECK(from_json(config.to_json()) == config.resolved());
    CHECK(name_of(config.model.mixer[0].type) == name);
  }
  const MixerConfig hedgehog =
      from_json(R"({"hidden": 128, "heads": 2, "mixer": "hedgehog"})").resolved().model.mixer[0];
  CHECK(hedgehog.feature_dim == 64);
  CHECK(hedgehog.qk_dim == 64);
  CHECK_THAT(error_of(R"({"mixer": {"type": "linear_elu", "gate": "refined"}})"),
             Contains("mixer.sum_norm without a gate on the value axis"));
  CHECK_THAT(error_of(R"({"layers": 2, "mixer": ["regla", {"type": "gla", "key_max": "token"}]})"),
             Contains("mixer.1.key_max only with safe_exp or favor"));
}

TEST_CASE("every file in configs describes a model") {
  const std::filesystem::path folder = std::string(REGLA_SOURCE_DIR) + "/configs";
  int files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.path().extension() != ".json") continue;
    INFO(entry.path().string());
    CHECK_NOTHROW(read_config(entry.path()));
    ++files;
  }
  CHECK(files >= 7);
}

TEST_CASE("what is written is resolved and reads as the same") {
  const auto config = from_json(
      R"({"layers": 2, "hidden": 64, "heads": 4, "dtype": "f64", "learning_rate": 0.1,
          "mixer": ["softmax", {"feature_map": "identity", "chunk": 16}], "seed": 9007199254740993,
          "reset_at_documents": true, "text": "raw", "tokenizer": "a/b.json", "gelu": "tanh"})");
  const std::string text = config.to_json();
  const TrainingConfig again = from_json(text);
  CHECK(again == config.resolved());
  CHECK(again.to_json() == text);
  CHECK(again.seed == 9007199254740993);
  CHECK(again.precision == Precision::F64);
  CHECK(again.model.mlp == 256);
  CHECK(again.model.mixer[1].feature_dim == 16);
  CHECK(again.model.mixer[1].score_scale == ScoreScale::SqrtD);
  const TrainingConfig defaults;
  CHECK(from_json(defaults.to_json()).model.mixer[0].score_scale == ScoreScale::Variance);
}

TEST_CASE("activation checkpointing was true or false once") {
  const auto read = [](const char* json) { return from_json(json).activation_checkpointing; };
  CHECK(read("{}") == ActivationCheckpointing::Cheap);
  CHECK(read(R"({"activation_checkpointing": false})") == ActivationCheckpointing::Cheap);
  CHECK(read(R"({"activation_checkpointing": true})") == ActivationCheckpointing::Blocks);
  CHECK(read(R"({"activation_checkpointing": "none"})") == ActivationCheckpointing::None);
  CHECK(read(apply_override("{}", "activation_checkpointing=true").c_str()) ==
        ActivationCheckpointing::Blocks);
  CHECK_THAT(error_of(R"({"activation_checkpointing": 1})"), Contains("activation_checkpointing"));
}

TEST_CASE("precision was called dtype once") {
  CHECK(from_json("{}").precision == Precision::Fp32);
  for (const auto& [json, wanted] : {std::pair(R"({"dtype": "f32"})", Precision::Fp32),
                                     {R"({"dtype": "f64"})", Precision::F64},
                                     {R"({"precision": "fp32"})", Precision::Fp32},
                                     {R"({"precision": "tf32"})", Precision::Tf32},
                                     {R"({"precision": "bf16"})", Precision::Bf16},
                                     {R"({"precision": "f64"})", Precision::F64}}) {
    INFO(json);
    const TrainingConfig config = from_json(json);
    CHECK(config.precision == wanted);
    CHECK_THAT(config.to_json(), !Contains("dtype"));
    CHECK(from_json(config.to_json()).precision == wanted);
  }
  CHECK_THAT(error_of(R"({"dtype": "f16"})"), Contains("precision"));
  CHECK_THAT(error_of(R"({"precision": "f32"})"), Contains("fp32"));
  CHECK_THAT(error_of(R"({"dtype": "f32", "precision": "bf16"})"), Contains("precision alone"));
  // In a file of either kind, set under either name.
  for (const char* text : {R"({"dtype": "f32"})", R"({"precision": "fp32"})", "{}"}) {
    CHECK(from_json(apply_override(text, "precision=bf16")).precision == Precision::Bf16);
    CHECK(from_json(apply_override(text, "dtype=f64")).precision == Precision::F64);
  }
}

TEST_CASE("every key of the table is written, once") {
  const TrainingConfig config;
  const std::string table = describe_config(), text = config.to_json();
  std::set<std::string> keys;
  fields(config, [&](const char* name, const auto&, const char* meaning) {
    CHECK(keys.insert(name).second);
    CHECK_THAT(table, Contains("| `" + std::string(name) + "` |"));
    CHECK_THAT(text, Contains("\"" + std::string(name) + "\":"));
    CHECK_THAT(std::string(meaning), !Contains("|") && !Contains("\n"));
  });
  CHECK_THAT(table, Contains("| `mixer.gate_axis` | `value`, `key`, `both` | `\"value\"` |"));
}

TEST_CASE("unknown keys name the nearest known one and where they are") {
  CHECK_THAT(error_of(R"({"step": 1})"),
             Contains("unknown key step; the nearest known key is steps"));
  CHECK_THAT(error_of(R"({"mixer": {"gate_axs": "key"}})"),
             Contains("mixer.gate_axs; the nearest known key is mixer.gate_axis"));
  CHECK_THAT(error_of(R"({"layers": 2, "mixer": ["regla", {"windw": 3}]})"),
             Contains("mixer.1.windw; the nearest known key is mixer.1.window"));
  CHECK_THAT(error_of(R"({"gate_axis": "key"})"), Contains("nearest known key is mixer.gate_axis"));
  CHECK_THAT(error_of(R"({"a\nb": 1})"), Contains("unknown key a\\nb"));
}

TEST_CASE("wrong types and values are errors") {
  CHECK_THAT(error_of(R"({"steps": "many"})"),
             Contains("expected an integer for steps, got \"many\""));
  CHECK_THAT(error_of(R"({"steps": 1.5})"), Contains("expected an integer for steps, got 1.5"));
  CHECK_THAT(error_of(R"({"steps": 1e300})"), Contains("expected an integer for steps"));
  CHECK_THAT(error_of(R"({"steps": 18446744073709551615})"), Contains("at most 2^63 - 1"));
  CHECK_THAT(error_of(R"({"steps": -1})"), Contains("steps from 0"));
  CHECK_THAT(error_of(R"({"steps": null})"), Contains("expected an integer for steps, got null"));
  CHECK(from_json(R"({"steps": 1e4})").steps == 10000);
  CHECK_THAT(error_of(R"({"learning_rate": true})"), Contains("expected a number"));
  CHECK_THAT(error_of(R"({"learning_rate": 1e999})"), Contains("out of range"));
  CHECK_THAT(error_of(R"({"carry_state": 1})"), Contains("expected true or false"));
  CHECK_THAT(error_of(R"({"tokenizer": 1})"), Contains("expected a string"));
  CHECK_THAT(error_of(R"({"schedule": "cosin"})"), Contains("one of constant, linear, cosine"));
  CHECK_THAT(error_of(R"({"mixer": 3})"), Contains("a mixer's name or an object for mixer, got 3"));
  CHECK_THAT(error_of(R"({"mixer": "rwkv"})"),
             Contains("one of regla, softmax, ") && Contains(" for mixer.type"));
  CHECK_THAT(error_of(R"({"mixer": []})"), Contains("got 0"));
  CHECK_THAT(error_of(R"({"text": "html"})"), Contains("tokens, raw, txt or empty"));
  CHECK_THAT(error_of("[]"), Contains("expected an object, got []"));
}

TEST_CASE("configurations that describe no model are errors") {
  CHECK_THAT(error_of(R"({"hidden": 100, "heads": 3})"), Contains("multiple of heads"));
  CHECK_THAT(error_of(R"({"hidden": 6, "heads": 2, "mixer": {"rope": "full"}})"),
             Contains("even number of features"));
  CHECK_THAT(error_of(R"({"hidden": 6, "heads": 2, "mixer": "softmax"})"),
             Contains("even number of features"));
  CHECK(error_of(R"({"hidden": 6, "heads": 2})") == "no error");
  CHECK_THAT(error_of(R"({"mixer": {"rope": "partial", "rotary_pct": 0.02}})"), Contains("even"));
  CHECK_THAT(error_of(R"({"mixer": {"rope": "partial", "rotary_pct": 2}})"), Contains("(0, 1]"));
  CHECK_THAT(error_of(R"({"layers": 0})"), Contains("layers from 1"));
  CHECK_THAT(error_of(R"({"hidden": 9000000000000000000})"), Contains("hidden from 1"));
  CHECK_THAT(error_of(R"({"sequence_length": 0})"), Contains("sequence_length from 1"));
  CHECK_THAT(error_of(R"({"batch_size": 0})"), Contains("batch_size from 1"));
  CHECK_THAT(error_of(R"({"micro_batches": 3})"), Contains("micro_batches to divide batch_size"));
  CHECK_THAT(error_of(R"({"layers": 3, "mixer": ["regla", "softmax"]})"),
             Contains("each of the 3"));
  CHECK_THAT(error_of(R"({"dropout": 1})"), Contains("dropout in [0, 1)"));
  CHECK_THAT(error_of(R"({"layers": 2, "mixer": ["regla", {"chunk": -1}]})"),
             Contains("mixer.1.chunk from 0"));
}

TEST_CASE("malformed configurations say where") {
  CHECK_THAT(error_of("{\n  \"steps\": 1,\n}"), Contains("malformed JSON at line 3, column 1"));
  CHECK_THAT(error_of(""), Contains("malformed JSON at line 1, column 1"));
  CHECK_THAT(error_of("{} {}"), Contains("malformed JSON at line 1, column 4"));
  CHECK_THAT(error_of("{\"steps\": NaN}"), Contains("malformed JSON at line 1"));
  CHECK_THAT(error_of(R"({"steps": 1, "steps": 2})"), Contains("the key \"steps\" is given twice"));
  CHECK_THAT(error_of("{\"a\": \"\xff\"}"), Contains("malformed JSON") && !Contains("\n"));
  CHECK_THAT(error_of(std::string(1000, '[')), Contains("nesting"));
}

TEST_CASE("overrides reach every key") {
  CHECK(with("{}", {"steps=7"}).steps == 7);
  CHECK(with("{}", {"tokenizer=byte"}).tokenizer == "byte");
  CHECK(with("{}", {"text="}).text.empty());
  CHECK(with("{}", {"tokenizer=a=b"}).tokenizer == "a=b");
  CHECK(with("{}", {"mixer=softmax"}).model.mixer[0].type == MixerType::Softmax);
  CHECK(with(R"({"mixer": "regla"})", {"mixer.type=softmax"}).model.mixer[0].type ==
        MixerType::Softmax);
  CHECK(with("{}", {"mixer.gate_axis=key"}).model.mixer[0].gate_axis == GateAxis::Key);
  const auto hybrid = with(R"({"layers": 2})", {R"(mixer=["regla", "softmax"])", "mixer.rope=none",
                                                "mixer.1.window=64", "mixer.0.gate_axis=key"});
  REQUIRE(hybrid.model.mixer.size() == 2);
  CHECK(hybrid.model.mixer[0].type == MixerType::Regla);
  CHECK(hybrid.model.mixer[0].gate_axis == GateAxis::Key);
  CHECK(hybrid.model.mixer[0].rope == Rope::None);
  CHECK(hybrid.model.mixer[0].window == 0);
  CHECK(hybrid.model.mixer[1].type == MixerType::Softmax);
  CHECK(hybrid.model.mixer[1].rope == Rope::None);
  CHECK(hybrid.model.mixer[1].window == 64);
}

TEST_CASE("overrides that make no sense are errors") {
  const std::string list = R"({"layers": 2, "mixer": ["regla", "softmax"]})";
  CHECK_THAT(error_with("{}", "steps"), Contains("expected key=value, got \"steps\""));
  CHECK_THAT(error_with("{}", "=3"), Contains("expected a key before ="));
  CHECK_THAT(error_with("{}", "mixer..x=3"), Contains("expected a key before ="));
  CHECK_THAT(error_with("{}", "stps=3"), Contains("nearest known key is steps"));
  CHECK_THAT(error_with("{}", "mixr.gate_axis=key"), Contains("nearest known key is mixer"));
  CHECK_THAT(error_with("{}", "mixer.gate_axs=key"), Contains("mixer.gate_axis"));
  CHECK(with("{}", {"steps=007"}).steps == 7);
  CHECK_THAT(error_with("{}", "steps=NaN"), Contains("expected an integer for steps, got \"NaN\""));
  CHECK_THAT(error_with(R"({"steps": 3})", "steps.x=3"),
             Contains("cannot set steps.x: steps is 3"));
  CHECK_THAT(error_with("{}", "mixer={\"type\":"), Contains("malformed JSON"));
  CHECK_THAT(error_with(list, "mixer.2.rope=none"), Contains("an index below 2 for mixer, got 2"));
  CHECK_THAT(error_with(R"({"mixer": "regla"})", "mixer.0.rope=none"), Contains("not a list"));
  CHECK_THAT(error_with("{}", "tokenizer=\xff"), Contains("UTF-8"));
}

TEST_CASE("configuration files") {
  const TemporaryFolder folder;
  std::ofstream(folder / "good.json") << R"({"steps": 5, "mixer": "regla"})";
  std::ofstream(folder / "bad.json") << R"({"stepz": 5})";
  CHECK(read_config(folder / "good.json").steps == 5);
  const std::vector<std::string> overrides = {"steps=6", "steps=7", "mixer.norm=none"};
  CHECK(read_config(folder / "good.json", overrides).steps == 7);
  CHECK(read_config(folder / "good.json", overrides).model.mixer[0].norm == MixerNorm::None);
  CHECK_THROWS_WITH(read_config(folder / "bad.json"), Contains("bad.json: unknown key stepz"));
  CHECK_THROWS_WITH(read_config(folder / "absent.json"), Contains("absent.json"));
  CHECK_THROWS_AS(read_config(folder.path()), Error);
}

TEST_CASE("the embedding is padded to a multiple of 128") {
  CHECK(padded_vocab(1) == 128);
  CHECK(padded_vocab(128) == 128);
  CHECK(padded_vocab(50277) == 50304);
}

TEST_CASE("a path of very many parts is refused") {
  const auto refused = [](const std::string& key) {
    const std::string error = error_with("{}", key + "=1");
    CHECK(error.size() < 200);
    return error;
  };
  std::string deep = "a";
  for (int i = 0; i < 40000; ++i) deep += ".a";
  CHECK_THAT(refused(deep), Contains("at most 64 parts of a key, got 40001"));
  CHECK_THAT(refused("mixer" + deep.substr(1)), Contains("at most 64 parts"));
  CHECK_THAT(refused(std::string(40000, '.')), Contains("expected a key before ="));
  CHECK_THAT(refused("steps." + std::string(100000, 'x')), Contains("..."));
  CHECK_THAT(error_with("{}", "mixer=" + std::string(100000, '[')), Contains("64 levels"));
}

TEST_CASE("text from outside is escaped in messages") {
  CHECK_THAT(error_of("{\"text\": \"a\\u001b[31m\"}"), Contains("got \"a\\u001b[31m\""));
}

}  // namespace regla
