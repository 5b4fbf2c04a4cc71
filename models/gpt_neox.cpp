#include "models/gpt_neox.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <utility>

#include "models/finite.h"
#include "models/gpt_neox_format.h"
#include "storage/files.h"
#include "storage/safetensors.h"

namespace regla {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kConfigLimit = uint64_t{1} << 24;  // bytes
constexpr uint64_t kIndexLimit = uint64_t{1} << 26;   // bytes; a tensor takes about a hundred
constexpr const char* kWeights = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kLateOutput = "lm_head.weight";

Json read_json(const fs::path& path, uint64_t limit) {
  return parse_json(read_file(path, limit), "[import] " + path.string() + ":");
}

/// Runs `f`, whose Errors about a configuration then name the file.
template <class F>
auto about(const fs::path& file, F&& f) {
  constexpr std::string_view kPrefix = "[config] ";
  try {
    return f();
  } catch (const Error& error) {
    std::string_view reason = error.what();
    if (!reason.starts_with(kPrefix)) throw;
    reason.remove_prefix(kPrefix.size());
    fail("[import] ", file.string(), ": ", reason);
  }
}

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

/// Whether a name in an index is that of a file beside it.
bool is_plain(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

/// The tensors of a folder, whichever files they are in, each to be taken once.
class WeightFiles {
 public:
  WeightFiles(const fs::path& folder, int64_t layers, GptNeoxSummary& summary) {
    if (is_there(folder / kWeights)) {
      add_file(folder / kWeights, summary);
    } else if (is_there(folder / kIndex)) {
      add_shards(folder, summary);
    } else {
      const bool has_pickle = is_there(folder / "pytorch_model.bin") ||
                              is_there(folder / "pytorch_model.bin.index.json");
      fail("[import] ", folder.string(), ": no ", kWeights,
           has_pickle ? ", only pytorch_model.bin, which is not read: have transformers save the "
                        "model anew (save_pretrained), or take a revision with safetensors"
                      : "");
    }
    std::erase_if(places_, [&](const auto& place) {
      const bool is_buffer = is_gpt_neox_buffer(place.first, layers);
      summary.buffers += is_buffer ? 1 : 0;
      return is_buffer;
    });
  }

  bool has(const std::string& name) const { return places_.contains(name); }
  bool has_doubles() const {
    return std::any_of(places_.begin(), places_.end(),
                       [](const auto& place) { return place.second.entry->dtype == DType::F64; });
  }

  /// Takes a tensor, which must have that shape.
  Tensor take(const std::string& name, const Shape& shape, GptNeoxSummary& summary) {
    const auto found = places_.find(name);
    check(found != places_.end(), "[import] ", files_.begin()->second->path.string(),
          files_.size() > 1 ? " and the other shards" : "", ": the tensor ", quoted(name),
          " is missing");
    const Place place = found->second;
    const TensorSource::Entry& entry = *place.entry;
    const std::string where = where_of(place.file, name);
    const bool is_weight = entry.dtype && *entry.dtype != DType::I32;
    check(is_weight, where, " expected F32, F16, BF16 or F64, got ", entry.type);
    check(entry.shape == shape, where, " expected the shape ", shape, " by config.json, got ",
          entry.shape);
    if (std::find(summary.types.begin(), summary.types.end(), entry.type) == summary.types.end()) {
      summary.types.push_back(entry.type);
    }
    Tensor tensor = Tensor::empty(shape, *entry.dtype);
    place.file->source.read(entry, tensor);
    places_.erase(found);
    return tensor;
  }

  /// An Error when a tensor is left.
  void finish() const {
    if (places_.empty()) return;
    const auto& [name, place] = *places_.begin();
    fail(where_of(place.file, name), " is no part of this model");
  }

  std::string where_of(const std::string& name) const {
    const auto found = places_.find(name);
    return where_of(found->second.file, name);
  }

 private:
  struct File {
    fs::path path;
    TensorSource source;
  };
  struct Place {
    const File* file;
    const TensorSource::Entry* entry;
  };

  static std::string where_of(const File* file, const std::string& name) {
    return "[import] " + file->path.string() + ", tensor " + quoted(name) + ":";
  }

  const File& add_file(const fs::path& path, GptNeoxSummary& summary) {
    const std::string name = path.filename().string();
    auto file = std::make_unique<File>(File{path, TensorSource(path, StoredTypes::All)});
    const File& added = *(files_[name] = std::move(file));
    summary.files.push_back(name);
    for (const TensorSource::Entry& entry : added.source.entries()) {
      const bool is_new = places_.emplace(entry.name, Place{&added, &entry}).second;
      check(is_new, where_of(&added, entry.name), " is in another file, too");
    }
    return added;
  }

  /// The files that an index names, whose tensors must be those that it names.
  void add_shards(const fs::path& folder, GptNeoxSummary& summary) {
    const std::string where = "[import] " + (folder / kIndex).string() + ": ";
    const Json index = read_json(folder / kIndex, kIndexLimit);
    const bool has_map = index.is_object() && index.contains("weight_map") &&
                         index["weight_map"].is_object() && !index["weight_map"].empty();
    check(has_map, where, "expected an object weight_map with the file of every tensor");
    for (const auto& item : index["weight_map"].items()) {
      const Json& value = item.value();
      check(value.is_string() && is_plain(value.get<std::string>()), where,
            "expected the name of a file in the folder for ", quoted(item.key()), ", got ",
            shown(value));
      const std::string name = value.get<std::string>();
      if (!files_.contains(name)) {
        check(is_there(folder / name), where, "the shard ", name, " is not there");
        add_file(folder / name, summary);
      }
    }
    for (const auto& item : index["weight_map"].items()) {
      const auto found = places_.find(item.key());
      const std::string name = item.value().get<std::string>();
      check(found != places_.end() && found->second.file == files_[name].get(), where,
            "the tensor ", quoted(item.key()), " is not in ", name);
    }
    for (const auto& [name, place] : places_) {
      check(index["weight_map"].contains(name), where_of(place.file, name), " is not in the index");
    }
  }

  std::map<std::string, std::unique_ptr<File>> files_;
  std::map<std::string, Place> places_;
};

/// Rows of `part` of three per head, [H 3 n, ...] -> [H n, ...], or back into their places.
template <class Copy>
void for_each_head(const Shape& part_shape, int64_t part, int64_t heads, const Copy& copy) {
  const int64_t rows = part_shape[0] / heads;
  for (int64_t head = 0; head < heads; ++head) {
    copy(head * rows, (head * kGptNeoxParts + part) * rows, rows);
  }
}

/// A shape with three times the rows.
Shape with_all_parts(const Shape& part) {
  std::vector<int64_t> sizes(part.sizes().begin(), part.sizes().end());
  sizes[0] *= kGptNeoxParts;
  return Shape(std::span<const int64_t>(sizes));
}

void copy_rows_of(const Tensor& from, int64_t first, int64_t count, Tensor& to, int64_t at) {
  const int64_t row = from.bytes() / from.dim(0);
  std::memcpy(static_cast<std::byte*>(to.raw()) + at * row,
              static_cast<const std::byte*>(from.raw()) + first * row,
              static_cast<size_t>(count * row));
}

/// Gives the parameters of a decoder from the tensors of a folder.
class Reader {
 public:
  Reader(WeightFiles& tensors, const ModelConfig& config, bool has_biases, GptNeoxSummary& summary)
      : tensors_(tensors), config_(config), has_biases_(has_biases), summary_(summary) {}

  Tensor operator()(const std::string& parameter, const Shape& shape, DType dtype) {
    const GptNeoxPlace place = gpt_neox_place(parameter);
    const bool is_absent_bias = !has_biases_ && place.name.ends_with(".bias") &&
                                place.name.find(".attention.") != std::string::npos;
    if (is_absent_bias) return Tensor::zeros(shape, dtype);
    if (place.part < 0) return tensors_.take(name_there(place.name), shape, summary_);
    return part_of(place, shape);
  }

  /// A tied output that was saved all the same must be the embedding's.
  void take_tied_output(const Tensor& embedding) {
    const std::string name = name_there(kGptNeoxOutput);
    if (!config_.tie_embeddings || !tensors_.has(name)) return;
    const std::string where = tensors_.where_of(name);
    const Tensor output =
        converted(tensors_.take(name, embedding.shape(), summary_), embedding.dtype());
    check(std::memcmp(output.raw(), embedding.raw(), static_cast<size_t>(output.bytes())) == 0,
          where, " differs from the embedding, to which config.json ties it");
  }

 private:
  /// Newer versions call the output otherwise in the model, and some files have it from there.
  std::string name_there(const std::string& name) const {
    const bool is_late = name == kGptNeoxOutput && !tensors_.has(name) && tensors_.has(kLateOutput);
    return is_late ? kLateOutput : name;
  }

  /// One of the three parts of a tensor, which is kept until all were asked for.
  Tensor part_of(const GptNeoxPlace& place, const Shape& shape) {
    auto found = held_.find(place.name);
    if (found == held_.end()) {
      found =
          held_
              .emplace(place.name, Held{tensors_.take(place.name, with_all_parts(shape), summary_)})
              .first;
    }
    Held& held = found->second;
    check(!std::exchange(held.is_taken[static_cast<size_t>(place.part)], true),
          "[import] a part of ", place.name, " was asked for twice");
    Tensor part = Tensor::empty(shape, held.all.dtype());
    for_each_head(shape, place.part, config_.heads, [&](int64_t at, int64_t there, int64_t rows) {
      copy_rows_of(held.all, there, rows, part, at);
    });
    if (held.is_taken == std::array{true, true, true}) held_.erase(found);
    return part;
  }

  struct Held {
    Tensor all;
    std::array<bool, kGptNeoxParts> is_taken{};
  };

  WeightFiles& tensors_;
  const ModelConfig& config_;
  bool has_biases_;
  GptNeoxSummary& summary_;
  std::map<std::string, Held> held_;
};

std::string percent_of(const ModelConfig& config) {
  const int64_t n = config.head_dim();
  return std::to_string(rotary_dim(config.mixer[0], n)) + " of " + std::to_string(n) +
         " elements of a head";
}

/// Sets what is asked for beside the folder's configuration, and says so where it is another.
void override_config(const GptNeoxOverrides& overrides, ModelConfig& config,
                     std::vector<std::string>& warnings) {
  if (overrides.sequential && config.parallel_residual) {
    config.parallel_residual = false;
    warnings.push_back("blocks are sequential; the checkpoint was made for parallel ones");
  }
  if (!overrides.rotary_pct) return;
  const std::string before = percent_of(config);
  set_rotation(config, *overrides.rotary_pct);
  if (percent_of(config) == before) return;
  warnings.push_back(percent_of(config) + " turn; the checkpoint was made for " + before);
}

void warn_of(const GptNeoxFacts& facts, std::vector<std::string>& warnings) {
  if (facts.attention_dropout > 0) {
    warnings.push_back("there is no attention_dropout here, which matters in training alone");
  }
  if (!facts.attention_bias) {
    warnings.push_back("the checkpoint's attention has no biases; here they are 0, and trained");
  }
}

/// A parameter as the tensor that stands for it there; with `part` 0 the rows of all three.
Tensor joined(const std::array<const Parameter*, kGptNeoxParts>& parts, int64_t heads) {
  const Shape& shape = parts[0]->value.shape();
  Tensor all = Tensor::empty(with_all_parts(shape), parts[0]->value.dtype());
  for (int64_t part = 0; part < kGptNeoxParts; ++part) {
    const Tensor here = parts[static_cast<size_t>(part)]->value.on(Device{});
    for_each_head(shape, part, heads, [&](int64_t at, int64_t there, int64_t rows) {
      copy_rows_of(here, at, rows, all, there);
    });
  }
  return all;
}

std::vector<NamedTensor> tensors_of(const Decoder& decoder) {
  std::vector<NamedTensor> tensors;
  std::map<std::string, std::array<const Parameter*, kGptNeoxParts>> parts;
  for (const Parameter* parameter : decoder.parameters()) {
    const GptNeoxPlace place = gpt_neox_place(parameter->name);
    if (place.part < 0) {
      tensors.push_back({place.name, parameter->value});
      continue;
    }
    auto& all = parts[place.name];
    all[static_cast<size_t>(place.part)] = parameter;
    const bool is_whole = std::all_of(all.begin(), all.end(), [](const auto* p) { return p; });
    if (is_whole) tensors.push_back({place.name, joined(all, decoder.config().heads)});
  }
  return tensors;
}

}  // namespace

bool names_architecture(const fs::path& folder) {
  const Json json = read_json(folder / "config.json", kConfigLimit);
  check(json.is_object(), "[import] ", (folder / "config.json").string(),
        ": expected an object, got ", shown(json));
  return json.contains("model_type") || json.contains("architectures");
}

std::unique_ptr<Decoder> read_gpt_neox(const fs::path& folder, const GptNeoxOverrides& overrides,
                                       GptNeoxSummary& summary) {
  const fs::path file = folder / "config.json";
  GptNeoxFacts facts;
  const ModelConfig config = about(file, [&] {
    ModelConfig read = gpt_neox_config(read_json(file, kConfigLimit), facts);
    override_config(overrides, read, summary.warnings);
    return read;
  });
  warn_of(facts, summary.warnings);
  WeightFiles tensors(folder, config.layers, summary);
  Reader reader(tensors, config, facts.attention_bias, summary);
  const auto take = [&](const std::string& name, const Shape& shape, DType dtype) {
    return reader(name, shape, dtype);
  };
  const DType dtype = tensors.has_doubles() ? DType::F64 : DType::F32;
  auto decoder = std::make_unique<Decoder>(config, ParameterFactory(take, dtype));
  reader.take_tied_output(decoder->parameters()[0]->value);
  tensors.finish();
  if (const Parameter* bad = first_not_finite(decoder->parameters())) {
    fail("[import] ", folder.string(), ": the tensor ", quoted(gpt_neox_place(bad->name).name),
         " holds a number that is not finite");
  }
  return decoder;
}

void write_gpt_neox(const fs::path& folder, Decoder& decoder, int32_t end_of_text,
                    int32_t entries) {
  const ModelConfig& config = decoder.config();
  const std::string obstacle = gpt_neox_obstacle(config);
  check(obstacle.empty(), "[export] expected a model of GPT-NeoX, but ", obstacle);
  // `transformers` refuses files that do not say what they were made with.
  write_safetensors(folder / kWeights, tensors_of(decoder), {{"format", "pt"}});
  Json generation = {{"bos_token_id", end_of_text}, {"eos_token_id", end_of_text}};
  std::vector<int64_t> padding;
  for (int64_t id = entries; id < config.vocab; ++id) padding.push_back(id);
  if (!padding.empty()) generation["suppress_tokens"] = padding;  // as `generate` does
  write_file(folder / "generation_config.json", dumped(generation, 2) + "\n");
  const DType weights = decoder.parameters()[0]->value.dtype();
  write_file(folder / "config.json", dumped(gpt_neox_json(config, weights, end_of_text), 2) + "\n");
}

}  // namespace regla
