// Folders of GPT-NeoX that are damaged, or of something else.

#include <sys/stat.h>

#include <cmath>

#include "tests/models/gpt_neox_support.h"

namespace regla::test {

TEST_CASE("configurations of other models are refused by what they say") {
  const auto message = [](const char* key, const std::optional<Json>& value) {
    const Copy copy("parallel_f32");
    copy.set(key, value);
    const std::string text = message_of(copy.path);
    CHECK_THAT(text, Contains("[import] " + (copy / "config.json").string() + ": "));
    return text;
  };
  CHECK_THAT(message("model_type", "llama"), Contains("got \"llama\""));
  CHECK_THAT(message("model_type", {}), Contains("expected a model_type"));
  CHECK_THAT(message("model_type", 3), Contains("model_type"));
  CHECK_THAT(message("architectures", Json::array({"GPTNeoXForTokenClassification"})),
             Contains("got \"GPTNeoXForTokenClassification\""));
  CHECK_THAT(message("quantization_config", Json::object()), Contains("quantised"));
  CHECK_THAT(message("hidden_act", "relu"), Contains("got \"relu\""));
  CHECK_THAT(message("hidden_size", 33), Contains("multiple of num_attention_heads"));
  CHECK_THAT(message("head_dim", 8), Contains("head_dim of 16, got 8"));
  for (const char* key : {"hidden_size", "num_hidden_layers", "num_attention_heads",
                          "intermediate_size", "vocab_size", "max_position_embeddings"}) {
    CHECK_THAT(message(key, {}), Contains("expected the key " + std::string(key)));
    CHECK_THAT(message(key, 0), Contains(key + std::string(" of at least 1, got 0")));
    CHECK_THAT(message(key, "2"), Contains("expected an integer for " + std::string(key)));
  }
  CHECK_THAT(message("num_hidden_layers", int64_t{1} << 40), Contains("layers"));
  CHECK_THAT(message("layer_norm_eps", 0), Contains("layer_norm_epsilon above 0"));
  CHECK_THAT(message("use_parallel_residual", 1), Contains("true or false"));
  const auto turns = [&](const Json& rope) { return message("rope_parameters", rope); };
  CHECK_THAT(turns({{"rope_type", "linear"}, {"factor", 2}}), Contains("got \"linear\""));
  CHECK_THAT(turns({{"rope_type", "default"}, {"factor", 2}}), Contains("expected no factor"));
  CHECK_THAT(turns({{"partial_rotary_factor", 0.2}}), Contains("got 3 of 16"));
  CHECK_THAT(turns({{"partial_rotary_factor", -1}}), Contains("in [0, 1], got -1"));
  CHECK_THAT(turns({{"rope_theta", 0}}), Contains("rope_base above 0"));
  CHECK_THAT(turns(3), Contains("expected an object for rope_parameters"));
}

TEST_CASE("a config.json that is none is one line, whatever it is") {
  const auto message = [](auto&& make) {
    const Copy copy("parallel_f32");
    fs::remove(copy / "config.json");
    make(copy / "config.json");
    const std::string text = message_of(copy.path);
    CHECK_THAT(text, Contains((copy / "config.json").string()));
    CHECK(error_of([&] { names_architecture(copy.path); }) != "no error");
    return text;
  };
  const auto with_text = [&](const std::string& text) {
    return message([&](const fs::path& path) { write_file(path, text); });
  };
  CHECK_THAT(with_text(""), Contains("malformed JSON"));
  CHECK_THAT(with_text("{\"model_type\": \"gpt_neox\""), Contains("malformed JSON at line 1"));
  CHECK_THAT(with_text("\x89PNG\r\n"), Contains("malformed JSON"));
  CHECK_THAT(with_text("[]"), Contains("expected an object, got []"));
  CHECK_THAT(with_text(std::string(size_t{17} << 20, ' ')), Contains("bytes that such a file"));
  CHECK_THAT(message([](const fs::path&) {}), Contains("cannot read"));
  CHECK_THAT(message([](const fs::path& path) { fs::create_directory(path); }),
             Contains("expected a regular file"));
  CHECK_THAT(message([](const fs::path& path) { REQUIRE(::mkfifo(path.c_str(), 0600) == 0); }),
             Contains("expected a regular file"));
  CHECK_THAT(message([](const fs::path& path) { fs::create_symlink("nowhere", path); }),
             Contains("cannot read"));
}

TEST_CASE("every tensor of a checkpoint is taken once and fits") {
  const std::string qkv = "gpt_neox.layers.1.attention.query_key_value.weight";
  const auto message = [](auto&& edit) {
    const Copy copy("parallel_f32");
    copy.edit(edit);
    return message_of(copy.path);
  };
  using Tensors = std::vector<NamedTensor>;
  for (const char* name :
       {"embed_out.weight", "gpt_neox.embed_in.weight", "gpt_neox.final_layer_norm.bias",
        qkv.c_str(), "gpt_neox.layers.0.mlp.dense_h_to_4h.bias"}) {
    CHECK_THAT(message([&](Tensors& all) {
                 std::erase_if(all, [&](const NamedTensor& t) { return t.name == name; });
               }),
               Contains("the tensor \"" + std::string(name) + "\" is missing"));
  }
  const auto with = [&](const char* name, const Tensor& tensor) {
    return message([&](Tensors& all) { all.push_back({name, tensor}); });
  };
  const Tensor small = Tensor::zeros({2}, DType::F32);
  for (const char* name :
       {"gpt_neox.layers.2.mlp.dense_h_to_4h.bias", "lm_head.weight", "score.weight",
        "gpt_neox.layers.2.attention.masked_bias", "gpt_neox.layers.x.attention.masked_bias",
        "gpt_neox.layers.0.attention.rotary_emb.cos", "attention.bias"}) {
    CHECK_THAT(with(name, small), Contains(std::string(name) + "\": is no part of this model"));
  }
  CHECK(with("gpt_neox.layers.1.attention.masked_bias", small) == "no error");
  CHECK_THAT(message([&](Tensors& all) {
               *find(all, qkv) = Tensor::zeros({32, 96}, DType::F32);
             }),
             Contains("expected the shape [96, 32] by config.json, got [32, 96]"));
  CHECK_THAT(message([&](Tensors& all) {
               *find(all, qkv) = Tensor::zeros({96, 32}, DType::I32);
             }),
             Contains("expected F32, F16, BF16 or F64, got I32"));
  CHECK_THAT(message([&](Tensors& all) { find(all, qkv)->data<float>()[5] = INFINITY; }),
             Contains("\"" + qkv + "\" holds a number that is not finite"));
}

TEST_CASE("weights of types that are no floats of 16 bits or more are refused by name") {
  const Copy copy("older_f16");
  const auto message = [&](const char* type, int64_t rows) {
    copy.edit_header("model.safetensors", [&](Json& header) {
      Json& entry = header["gpt_neox.final_layer_norm.weight"];
      entry["dtype"] = type;
      entry["shape"] = {rows};
    });
    return message_of(copy.path);
  };
  CHECK_THAT(message("F8_E4M3", 64), Contains("expected F32, F16, BF16 or F64, got F8_E4M3"));
  CHECK_THAT(message("F8_E5M2", 64), Contains("got F8_E5M2"));
  CHECK_THAT(message("I8", 64), Contains("got I8"));
  CHECK_THAT(message("F4", 128), Contains("got \"F4\""));
  CHECK(message("F16", 32) == "no error");
}

TEST_CASE("shards are all there, and in them what the index says") {
  const std::string kShard = "model-00002-of-00003.safetensors";
  const auto message = [&](auto&& damage) {
    const Copy copy("sequential_f16_shards");
    damage(copy);
    return message_of(copy.path);
  };
  const auto with_map = [&](auto&& edit) {
    return message([&](const Copy& copy) {
      const fs::path path = copy / "model.safetensors.index.json";
      Json index = parse_json(read_file(path), "test");
      edit(index["weight_map"]);
      write_file(path, index.dump());
    });
  };
  const std::string name = "gpt_neox.final_layer_norm.bias";
  CHECK_THAT(message([&](const Copy& copy) { fs::remove(copy / kShard); }),
             Contains("the shard " + kShard + " is not there"));
  CHECK_THAT(message([&](const Copy& copy) {
               fs::remove(copy / kShard);
               fs::create_symlink("../blobs/0123", copy / kShard);
             }),
             Contains(kShard + ": No such file"));
  CHECK_THAT(message([&](const Copy& copy) {
               fs::copy_file(copy / "model-00001-of-00003.safetensors", copy / kShard,
                             fs::copy_options::overwrite_existing);
             }),
             Contains("is in another file, too"));
  CHECK_THAT(message([&](const Copy& copy) {
               const std::string bytes = read_file(copy / kShard);
               write_file(copy / kShard, bytes.substr(0, bytes.size() - 3));
             }),
             Contains(kShard));
  for (const char* text : {"", "[]", "{}", "{\"weight_map\": {}}", "{\"weight_map\": 3}"}) {
    CHECK_THAT(
        message([&](const Copy& copy) { write_file(copy / "model.safetensors.index.json", text); }),
        Contains("model.safetensors.index.json: "));
  }
  CHECK_THAT(with_map([&](Json& map) { map[name] = "../x.safetensors"; }),
             Contains("expected the name of a file in the folder for \"" + name));
  CHECK_THAT(with_map([&](Json& map) { map[name] = 3; }), Contains("expected the name of a file"));
  CHECK_THAT(with_map([&](Json& map) { map[name] = kShard + "x"; }), Contains("is not there"));
  CHECK_THAT(with_map([&](Json& map) { map[name] = kShard; }),
             Contains("the tensor \"" + name + "\" is not in " + kShard));
  CHECK_THAT(with_map([&](Json& map) { map["extra"] = kShard; }),
             Contains("the tensor \"extra\" is not in " + kShard));
  CHECK_THAT(with_map([&](Json& map) { map.erase(name); }),
             Contains("\"" + name + "\": is not in the index"));
}

TEST_CASE("a folder without safetensors says what it has instead") {
  const Copy copy("parallel_f32");
  const std::string bytes = read_file(copy / "model.safetensors");
  for (const size_t length : {size_t{0}, size_t{5}, size_t{100}, bytes.size() - 1}) {
    write_file(copy / "model.safetensors", bytes.substr(0, length));
    CHECK_THAT(message_of(copy.path), Contains("model.safetensors"));
  }
  fs::remove(copy / "model.safetensors");
  CHECK_THAT(message_of(copy.path), Contains(": no model.safetensors"));
  write_file(copy / "pytorch_model.bin", "PK");
  CHECK_THAT(message_of(copy.path), Contains("only pytorch_model.bin, which is not read"));
  fs::create_directory(copy / "model.safetensors");
  CHECK_THAT(message_of(copy.path), Contains("expected a regular file"));
  fs::remove(copy / "model.safetensors");
  REQUIRE(::mkfifo((copy / "model.safetensors").c_str(), 0600) == 0);
  CHECK_THAT(message_of(copy.path), Contains("expected a regular file"));
}

}  // namespace regla::test
