// Folders of GPT-NeoX, read and written.

#include "models/gpt_neox.h"

#include "models/generation.h"
#include "tests/models/gpt_neox_support.h"
#include "tests/support.h"

namespace regla::test {
namespace {

constexpr int32_t kEntries = 260;  // of the fixtures' tokenizer

Tensor reference(const std::string& fixture, const char* name) {
  const Tensor tensor = read_safetensors(kFixtures / fixture / "reference.safetensors").find(name);
  REQUIRE(tensor.defined());
  return tensor;
}

bool same_weights(const Decoder& a, const Decoder& b) {
  if (a.parameters().size() != b.parameters().size()) return false;
  for (size_t i = 0; i < a.parameters().size(); ++i) {
    const Parameter &x = *a.parameters()[i], &y = *b.parameters()[i];
    if (x.name != y.name || !same_bits(x.value, y.value)) return false;
  }
  return true;
}

struct Fixture {
  const char* name;
  size_t files;
  const char* type;
  int64_t buffers;
  int64_t rotated;
};
constexpr Fixture kAll[] = {{"parallel_f32", 1, "F32", 0, 4},
                            {"sequential_f16_shards", 3, "F16", 0, 16},
                            {"parallel_bf16_tied", 1, "BF16", 0, 16},
                            {"sequential_f32_tied_no_bias_shards", 3, "F32", 0, 4},
                            {"older_f16", 1, "F16", 6, 4}};

/// Numbers of 16 bits as tensors hold none: the file's, widened.
Tensor stored(const fs::path& file, const std::string& name) {
  const TensorSource source(file, StoredTypes::All);
  for (const TensorSource::Entry& entry : source.entries()) {
    if (entry.name != name) continue;
    Tensor tensor = Tensor::empty(entry.shape, *entry.dtype);
    source.read(entry, tensor);
    return tensor;
  }
  return {};
}

}  // namespace

TEST_CASE("GPT-NeoX checkpoints give the logits and tokens that transformers gives") {
  for (const Fixture& fixture : kAll) {
    INFO(fixture.name);
    Read got = read(kFixtures / fixture.name);
    Decoder& decoder = *got.decoder;
    CHECK(got.summary.files.size() == fixture.files);
    CHECK(got.summary.types == std::vector<std::string>{fixture.type});
    CHECK(got.summary.buffers == fixture.buffers);
    CHECK(rotary_dim(decoder.config().mixer[0], 16) == fixture.rotated);
    const Tensor ids = reference(fixture.name, "ids");
    // 2e-5: the exact GELU in place of the approximate one would hide at 1e-4.
    CHECK(relative_error(all_logits(decoder, ids), reference(fixture.name, "logits")) < 2e-5);
    const Tensor greedy = reference(fixture.name, "greedy");
    const std::span<const int32_t> prompt(ids.data<int32_t>(), static_cast<size_t>(ids.dim(1)));
    const std::vector<int32_t> tokens = generate(
        decoder, prompt,
        {.sampling = {.temperature = 0}, .max_new_tokens = greedy.dim(1), .vocab = kEntries});
    CHECK(tokens ==
          std::vector<int32_t>(greedy.data<int32_t>(), greedy.data<int32_t>() + greedy.numel()));
  }
}

TEST_CASE("every key of a GPT-NeoX configuration arrives") {
  const ModelConfig older = read(kFixtures / "older_f16").decoder->config();
  CHECK(older.layers == 2);
  CHECK(older.hidden == 32);
  CHECK(older.heads == 2);
  CHECK(older.mlp == 40);
  CHECK(older.vocab == 264);
  CHECK(older.sequence_length == 64);
  CHECK(older.layer_norm_epsilon == 1e-6);
  CHECK(older.mixer[0].rope_base == 5000);
  CHECK(older.mixer[0].rope == Rope::Partial);
  CHECK(older.dropout == 0);
  CHECK_FALSE(older.parallel_residual);
  CHECK_FALSE(older.tie_embeddings);
  const Copy copy("parallel_f32");
  copy.set("hidden_dropout", 0.25);
  copy.set("rope_parameters", {});
  copy.set("rotary_pct", 1.0);
  CHECK(read(copy.path).decoder->config().dropout == 0.25);
  CHECK(read(copy.path).decoder->config().mixer[0].rope == Rope::Full);
  // What transformers reads first.
  copy.set("rope_scaling", Json({{"type", "default"}, {"partial_rotary_factor", 0}}));
  CHECK(read(copy.path).decoder->config().mixer[0].rope == Rope::None);
  copy.set("rope_scaling", Json(nullptr));
  copy.set("rope_parameters", Json({{"rope_theta", 77}}));
  CHECK(read(copy.path).decoder->config().mixer[0].rope == Rope::Full);
  CHECK(read(copy.path).decoder->config().mixer[0].rope_base == 77);
  copy.set("attention_dropout", 0.1);
  CHECK_THAT(read(copy.path).summary.warnings.at(0), Contains("attention_dropout"));
}

TEST_CASE("a model that is read otherwise than its checkpoint says is another, with a warning") {
  const Tensor ids = reference("parallel_f32", "ids"), logits = reference("parallel_f32", "logits");
  const fs::path folder = kFixtures / "parallel_f32";
  for (const GptNeoxOverrides& overrides :
       {GptNeoxOverrides{.sequential = true}, GptNeoxOverrides{.rotary_pct = 1.0}}) {
    Read other = read(folder, overrides);
    REQUIRE(other.summary.warnings.size() == 1);
    CHECK_THAT(other.summary.warnings[0], Contains("the checkpoint was made for"));
    CHECK(relative_error(all_logits(*other.decoder, ids), logits) > 1e-2);
  }
  const Copy other_gelu("parallel_f32");
  other_gelu.set("hidden_act", "gelu_new");
  CHECK(relative_error(all_logits(*read(other_gelu.path).decoder, ids), logits) > 5e-5);
  CHECK(read(folder, {.rotary_pct = 0.25}).summary.warnings.empty());
  CHECK(read(kFixtures / "older_f16", {.sequential = true}).summary.warnings.empty());
  CHECK_THAT(message_of(folder, {.rotary_pct = 0.2}), Contains("got 3 of 16"));
  CHECK_THAT(message_of(folder, {.rotary_pct = 1.5}), Contains("a rotary part in [0, 1], got 1.5"));
}

TEST_CASE("what was written as GPT-NeoX is read with the same bits") {
  ModelConfig config;
  config.layers = 3;
  config.hidden = 24;
  config.heads = 3;
  config.mlp = 20;
  config.vocab = 261;
  config.mixer = {preset(MixerType::Softmax)};
  const auto with = [&](auto&& change) {
    ModelConfig other = config;
    change(other);
    return other;
  };
  const ModelConfig configs[] = {
      config, with([](ModelConfig& c) { c.parallel_residual = c.tie_embeddings = true; }),
      with([](ModelConfig& c) {
        c.gelu = Gelu::Tanh;
        c.dropout = 0.05;
        c.layer_norm_epsilon = 1e-6;
        c.sequence_length = 77;
        c.mixer[0].rope = Rope::Partial;
        c.mixer[0].rotary_pct = 0.5;
        c.mixer[0].rope_base = 500;
      }),
      with([](ModelConfig& c) { c.mixer[0].rope = Rope::None; })};
  for (const DType dtype : {DType::F32, DType::F64, DType::BF16}) {
    for (const ModelConfig& each : configs) {
      INFO(name_of(dtype));
      const TemporaryFolder folder;
      Decoder decoder(each, 5, dtype);
      for (Parameter* parameter : decoder.parameters()) {
        parameter->value = normal_tensor(parameter->value.shape(), parameter->value.dtype(), 3);
      }
      write_gpt_neox(folder.path(), decoder, 2, kEntries);
      const Read again = read(folder.path());
      CHECK(again.decoder->config() == decoder.config());
      CHECK(again.decoder->dtype() == sum_type(dtype));
      CHECK(same_weights(*again.decoder, decoder));
      CHECK(again.summary.warnings.empty());
      CHECK(read_file(folder / "generation_config.json").find("260") != std::string::npos);
    }
  }
}

TEST_CASE("a checkpoint that was read and written has transformers' tensors again, in F32") {
  for (const Fixture& fixture : kAll) {
    INFO(fixture.name);
    const TemporaryFolder folder;
    const Read first = read(kFixtures / fixture.name);
    write_gpt_neox(folder.path(), *first.decoder, 0, kEntries);
    CHECK(same_weights(*read(folder.path()).decoder, *first.decoder));
    for (const NamedTensor& written : read_safetensors(folder / "model.safetensors").tensors) {
      Tensor original;
      for (const auto& entry : fs::directory_iterator(kFixtures / fixture.name)) {
        const std::string name = entry.path().filename();
        if (!name.starts_with("model") || !name.ends_with(".safetensors")) continue;
        if (const Tensor found = stored(entry.path(), written.name)) original = found;
      }
      if (std::string(fixture.name).find("no_bias") != std::string::npos && !original) {
        CHECK(largest_of(written.tensor) == 0);
      } else {
        INFO(written.name);
        CHECK(same_bits(written.tensor, converted(original, DType::F32)));
      }
    }
  }
}

TEST_CASE("only softmax attention of one kind is a GPT-NeoX") {
  ModelConfig config;
  config.layers = 2;
  config.hidden = 16;
  config.heads = 2;
  config.vocab = 260;
  config.mixer = {preset(MixerType::Softmax), preset(MixerType::Softmax)};
  CHECK(gpt_neox_obstacle(config).empty());
  const auto obstacle = [&](auto&& change) {
    ModelConfig other = config;
    change(other.mixer[1]);
    const std::string why = gpt_neox_obstacle(other);
    const TemporaryFolder folder;
    Decoder decoder(other, 1);
    CHECK_THAT(error_of([&] { write_gpt_neox(folder.path(), decoder, 0, 260); }), Contains(why));
    CHECK(fs::is_empty(folder.path()));
    return why;
  };
  CHECK_THAT(obstacle([](MixerConfig& m) { m = {}; }), Contains("layer 1 is regla"));
  CHECK_THAT(obstacle([](MixerConfig& m) { m.window = 4; }), Contains("window"));
  CHECK_THAT(obstacle([](MixerConfig& m) { m.feature_dim = 4; }), Contains("queries of 4"));
  CHECK_THAT(obstacle([](MixerConfig& m) { m.rope = Rope::None; }), Contains("turns otherwise"));
  CHECK_THAT(obstacle([](MixerConfig& m) { m.rope_base = 7; }), Contains("turns otherwise"));
}

TEST_CASE("an output that is saved beside the embedding it is tied to is the same") {
  const Copy copy("parallel_bf16_tied");
  copy.edit([](std::vector<NamedTensor>& all) {
    all.push_back({"lm_head.weight", find(all, "gpt_neox.embed_in.weight")->clone()});
  });
  CHECK(message_of(copy.path) == "no error");
  copy.edit([](std::vector<NamedTensor>& all) { find(all, "lm_head.weight")->fill(1); });
  CHECK_THAT(message_of(copy.path), Contains("\"lm_head.weight\": differs from the embedding"));
  const Copy untied("parallel_f32");
  untied.edit([](std::vector<NamedTensor>& all) {
    for (NamedTensor& entry : all) {
      if (entry.name == "embed_out.weight") entry.name = "lm_head.weight";
    }
  });
  CHECK(same_weights(*read(untied.path).decoder, *read(kFixtures / "parallel_f32").decoder));
}

TEST_CASE("a snapshot of the hub is links into other folders") {
  const TemporaryFolder hub;
  fs::create_directories(hub / "blobs");
  fs::create_directories(hub / "snapshots/1");
  int number = 0;
  for (const auto& entry : fs::directory_iterator(kFixtures / "sequential_f16_shards")) {
    const std::string blob = "blobs/" + std::to_string(number++);
    fs::copy_file(entry.path(), hub / blob);
    fs::create_symlink("../../" + blob, hub / "snapshots/1" / entry.path().filename());
  }
  CHECK(same_weights(*read(hub / "snapshots/1").decoder,
                     *read(kFixtures / "sequential_f16_shards").decoder));
}

}  // namespace regla::test
