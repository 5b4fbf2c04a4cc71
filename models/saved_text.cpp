#include "models/saved_text.h"

#include <limits>
#include <vector>

#include "backends/kernels.h"
#include "core/hash.h"
#include "core/numbers.h"
#include "models/mixer_json.h"
#include "storage/tensor_reader.h"

namespace regla {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormat = "regla text";
constexpr const char* kVersion = "1";
constexpr int64_t kMostTokens = std::numeric_limits<int32_t>::max();  // as positions are counted

std::string_view bytes_of(const Tensor& here) {
  return {static_cast<const char*>(here.raw()), static_cast<size_t>(here.bytes())};
}

/// A hash of the configuration and of the weights as they are read, biases in either type.
std::string fingerprint(const Decoder& decoder) {
  uint64_t hash = hash_bytes(dumped(write_fields(decoder.config())));
  for (const Parameter* parameter : decoder.parameters()) {
    hash = hash_bytes(parameter->name, hash);
    const bool is_bias = parameter->role == Role::Bias;
    const Tensor& read = is_bias ? parameter->value : parameter->factor();
    hash = hash_bytes(bytes_of(read.on(Device{})), hash);
  }
  return hexadecimal(hash);
}

/// What a file says about whose text it is, and in which words it is refused.
struct Belonging {
  const char *key, *what;
  std::string value;
};
std::vector<Belonging> belongings(Decoder& decoder, const TextOrigin& origin) {
  return {{"precision", "of a model that computes in another precision: ", origin.precision},
          {"weights", "of a model whose weights are kept in another type: ",
           std::string(name_of(decoder.weights_type()))},
          {"tokenizer", "of another tokenizer", origin.tokenizer},
          {"model", "of another model", fingerprint(decoder)}};
}

std::string checksum(const std::vector<NamedTensor>& tensors, int64_t draws) {
  uint64_t hash = hash_bytes(std::to_string(draws));
  for (const auto& [name, tensor] : tensors) {
    hash = hash_bytes(name, hash);
    hash = hash_bytes(bytes_of(tensor), hash);
  }
  return hexadecimal(hash);
}

class TextReader {
 public:
  TextReader(const fs::path& path, Decoder& decoder)
      : where_("[generate] " + path.string()), decoder_(decoder), file_(path, "[generate]") {}

  TextState read(const TextOrigin& origin) {
    check(said("format") == kFormat, where_, " is no text that was saved");
    check(said("version") == kVersion, where_, ": expected the format's version ", kVersion,
          ", got ", quoted(said("version")));
    for (const Belonging& own : belongings(decoder_, origin)) {
      const bool is_named = std::string_view(own.what).ends_with(": ");
      check(said(own.key) == own.value, where_, " is a text ", own.what,
            is_named ? quoted(said(own.key)) + ", not " + quoted(own.value) : "");
    }
    const std::optional<int64_t> draws = parse_integer(said("draws"));
    check(draws && *draws >= 0 && *draws <= kMostTokens, where_, ": expected draws from 0 to ",
          kMostTokens, ", got ", quoted(said("draws")));
    TextState text;
    text.draws = *draws;
    read_state(text);
    text.scores =
        take("scores", {1, decoder_.config().vocab}, sum_type(decoder_.dtype())).on(device());
    text.seen = {take_ids("seen", file_.with_stored("seen", {0}, 0))};
    text.last = {*take_ids("last", {1}).begin()};
    file_.finish("a text");
    check(said("checksum") == checksum(taken_, text.draws), where_, " is damaged");
    text.state.check_values(where_, kMostTokens);
    check(kernels(device()).all_finite(text.scores), where_,
          ": scores holds numbers that are not finite");
    return text;
  }

 private:
  Device device() const { return decoder_.device(); }

  std::string said(const std::string& key) const {
    const auto found = file_.metadata().find(key);
    return found == file_.metadata().end() ? "" : found->second;
  }

  /// A tensor on the host.
  Tensor take(const std::string& name, const Shape& shape, DType dtype) {
    taken_.push_back({name, file_.take(name, shape, dtype)});
    return taken_.back().tensor;
  }

  void read_state(TextState& text) {
    const double position = take_position();
    // A cache with room for a token has the shapes of any, but for its entries.
    text.state = decoder_.initial_state(1);
    decoder_.reserve(text.state, 1);
    for (size_t layer = 0; layer < text.state.layers.size(); ++layer) {
      MixerState& state = text.state.layers[layer];
      const std::string prefix = std::to_string(layer) + ".";
      for (const auto& [name, var] :
           {std::pair("S", &state.S), std::pair("m", &state.m), std::pair("keys", &state.keys),
            std::pair("values", &state.values)}) {
        if (!var->defined()) continue;
        Shape shape = var->value.shape();
        const bool is_cache = var == &state.keys || var == &state.values;
        if (is_cache) shape = file_.with_stored(prefix + name, shape, 1);
        *var = take(prefix + name, shape, var->value.dtype()).on(device());
      }
      if (!state.keys.defined()) continue;
      state.length = state.keys.dim(1);
      state.used = {};
      check_cache(static_cast<int64_t>(layer), state, position);
    }
    text.state.position = Tensor::full({1}, position, DType::I32, device());
  }

  double take_position() {
    const double position = take("position", {1}, DType::I32).values()[0];
    check(position >= 1, where_, ": expected a position of at least 1, got ", position);
    return position;
  }

  /// As many entries as tokens, or at least those that a window sees.
  void check_cache(int64_t layer, const MixerState& state, double position) const {
    const auto tokens = static_cast<int64_t>(position);
    const Mixer& mixer = *decoder_.blocks()[static_cast<size_t>(layer)].mixer;
    const int64_t bytes = state.keys.value.bytes() + state.values.value.bytes();
    check(state.values.dim(1) == state.length && state.length <= tokens &&
              bytes >= mixer.state_bytes(tokens, decoder_.dtype()),
          where_, ", layer ", layer, ": a cache of ", state.length, " and ", state.values.dim(1),
          " entries does not belong to ", tokens, " tokens");
  }

  std::set<int32_t> take_ids(const std::string& name, const Shape& shape) {
    std::set<int32_t> ids;
    for (const double id : take(name, shape, DType::I32).values()) {
      check(id >= 0 && id < static_cast<double>(decoder_.config().vocab), where_, ": expected ",
            name, " to hold ids below ", decoder_.config().vocab, ", got ", id);
      ids.insert(static_cast<int32_t>(id));
    }
    return ids;
  }

  std::string where_;
  Decoder& decoder_;
  TensorReader file_;
  std::vector<NamedTensor> taken_;  // in the order of a file
};

}  // namespace

TextState load_text(const fs::path& path, Decoder& decoder, const TextOrigin& origin) {
  return TextReader(path, decoder).read(origin);
}

void save_text(const fs::path& path, Decoder& decoder, const TextState& text,
               const TextOrigin& origin) {
  check(!text.empty() && text.scores.dim(0) == 1, "[generate] expected a single text to save");
  std::vector<NamedTensor> tensors;
  const auto add = [&](const std::string& name, const Tensor& tensor) {
    tensors.push_back({name, tensor.on(Device{})});
  };
  DecoderState state = text.state.detached();
  add("position", state.position);
  state.for_each([&](const std::string& name, Tensor& tensor) {
    if (name != "position") add(name, tensor);
  });
  add("scores", text.scores);
  const std::set<int32_t>& seen = text.seen.at(0);
  add("seen", Tensor::of({static_cast<int64_t>(seen.size())},
                         std::vector<int32_t>(seen.begin(), seen.end())));
  add("last", Tensor::of({1}, text.last));
  Metadata metadata = {{"format", kFormat},
                       {"version", kVersion},
                       {"draws", std::to_string(text.draws)},
                       {"checksum", checksum(tensors, text.draws)}};
  for (const Belonging& own : belongings(decoder, origin)) metadata[own.key] = own.value;
  write_safetensors(path, tensors, metadata, NamedBy::User);
}

}  // namespace regla
