#include "models/saved_text.h"

#include "models/generation.h"
#include "storage/files.h"
#include "storage/safetensors.h"
#include "tests/error_of.h"
#include "tests/layers/mixer_cases.h"
#include "tests/matchers.h"
#include "tests/support.h"
#include "tests/temporary_folder.h"
#include "tests/walled_device.h"

namespace regla::test {
namespace {

const TextOrigin kOrigin = {.tokenizer = "12", .precision = "fp32"};
const std::vector<int32_t> kPrompt = {3, 1, 4, 1, 5, 9, 2, 6};

ModelConfig model_of(const MixerConfig& mixer) {
  ModelConfig config = {.layers = 2, .hidden = 16, .heads = 2, .mlp = 24, .vocab = 53};
  config.mixer = {mixer};
  return config;
}

/// Softmax attention, with and without a window, beside every other mixer.
Cases models() {
  Cases cases = presets();
  for (const int64_t window : {0, 1, 6, 40}) {
    cases.push_back(with("window " + std::to_string(window), MixerType::Softmax,
                         [=](MixerConfig& c) { c.window = window; }));
  }
  return cases;
}

/// A file of a text that wrote 20 tokens, of softmax attention with a window.
class SavedText {
 public:
  SavedText() {
    MixerConfig mixer = small(MixerType::Softmax);
    mixer.window = 6;
    decoder = std::make_unique<Decoder>(model_of(mixer), 3);
    TextState text;
    read_on(*decoder, text, kPrompt);
    write_on(*decoder, text, {.sampling = {}, .max_new_tokens = 20});
    save_text(path, *decoder, text, kOrigin);
    bytes = read_file(path);
  }

  std::string refused() const {
    return error_of([&] { load_text(path, *decoder, kOrigin); });
  }
  /// The error of a file whose tensors and metadata were edited.
  std::string refused(const std::function<void(TensorFile&)>& edit) const {
    write_file(path, bytes);
    TensorFile file = read_safetensors(path);
    edit(file);
    write_safetensors(path, file.tensors, file.metadata);
    return refused();
  }

  TemporaryFolder folder;
  std::string path = (folder / "text").string(), bytes;
  std::unique_ptr<Decoder> decoder;
};

Tensor& tensor_of(TensorFile& file, const std::string& name) {
  for (NamedTensor& entry : file.tensors) {
    if (entry.name == name) return entry.tensor;
  }
  FAIL("no tensor " << name);
  return file.tensors[0].tensor;
}

}  // namespace

TEST_CASE("a text that was saved goes on with the bits of one that was not") {
  const TemporaryFolder folder;
  const std::string path = (folder / "text").string();
  for (const auto& [name, mixer] : models()) {
    for (const DType dtype : {DType::F32, DType::BF16}) {
      for (const Device device : {Device{}, walled_device()}) {
        if (!device.is_cpu() && (dtype == DType::BF16)) continue;
        INFO(name << ", " << name_of(dtype) << ", " << device.text());
        Decoder decoder(model_of(mixer), 3, dtype, device);
        GenerationOptions options = {.sampling = {.repetition_penalty = 1.2, .seed = 8},
                                     .max_new_tokens = 24};
        const auto whole = generate(decoder, kPrompt, options);
        for (const int64_t before : {0, 15}) {
          TextState text;
          read_on(decoder, text, kPrompt);
          options.max_new_tokens = before;
          auto ids = write_on(decoder, text, options);
          save_text(path, decoder, text, kOrigin);
          // In another process, so to speak.
          Decoder again(model_of(mixer), 3, dtype, device);
          TextState loaded = load_text(path, again, kOrigin);
          CHECK(loaded.draws == before);
          CHECK(loaded.seen == text.seen);
          CHECK(loaded.last == text.last);
          CHECK(same_bits(loaded.scores.on(Device{}), text.scores.on(Device{})));
          options.max_new_tokens = 24 - before;
          const auto rest = write_on(again, loaded, options);
          ids.insert(ids.end(), rest.begin(), rest.end());
          CHECK(ids == whole);
        }
      }
    }
  }
}

TEST_CASE("a text of another model, precision or tokenizer is refused") {
  const SavedText saved;
  const auto refused = [&](Decoder& decoder, const TextOrigin& origin) {
    return error_of([&] { load_text(saved.path, decoder, origin); });
  };
  CHECK(refused(*saved.decoder, kOrigin) == "no error");
  CHECK(refused(*saved.decoder, {"13", "fp32"}) ==
        "[generate] " + saved.path + " is a text of another tokenizer");
  CHECK(refused(*saved.decoder, {"12", "tf32"}) ==
        "[generate] " + saved.path +
            " is a text of a model that computes in another precision: \"fp32\", not \"tf32\"");
  Decoder weights(saved.decoder->config(), 4);
  CHECK(refused(weights, kOrigin) == "[generate] " + saved.path + " is a text of another model");
  ModelConfig config = saved.decoder->config();
  config.mixer[0].window = 7;
  Decoder window(config, 3);
  CHECK_THAT(refused(window, kOrigin), Contains("another model"));
  Decoder narrow(saved.decoder->config(), 3);
  narrow.store_weights(DType::BF16);
  CHECK_THAT(refused(narrow, kOrigin), Contains("weights are kept in another type: \"F32\""));
}

TEST_CASE("a file that is cut off or damaged is no text") {
  const SavedText saved;
  for (size_t length = 0; length < saved.bytes.size(); length += length < 16 ? 1 : 97) {
    write_file(saved.path, saved.bytes.substr(0, length));
    CHECK_THAT(saved.refused(), Contains(saved.path));
  }
  // A bit anywhere, but in the blanks that fill the header up.
  for (size_t at = 3; at < saved.bytes.size(); at += 41) {
    std::string bytes = saved.bytes;
    if (bytes[at] == ' ') continue;
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    write_file(saved.path, bytes);
    INFO(at);
    CHECK_THAT(saved.refused(), Contains(saved.path));
  }
  write_file(saved.path, "no text");
  CHECK_THAT(saved.refused(), Contains(saved.path));
}

TEST_CASE("a file that was made up is refused") {
  const SavedText saved;
  CHECK_THAT(saved.refused([](TensorFile& f) { f.metadata.clear(); }),
             Contains("no text that was"));
  CHECK_THAT(saved.refused([](TensorFile& f) { f.metadata["version"] = "2"; }),
             Contains("expected the format's version 1, got \"2\""));
  CHECK_THAT(saved.refused([](TensorFile& f) { f.metadata["draws"] = "-1"; }), Contains("draws"));
  CHECK_THAT(saved.refused([](TensorFile& f) { f.metadata["draws"] = "3"; }), Contains("damaged"));
  CHECK_THAT(saved.refused([](TensorFile& f) { f.tensors.pop_back(); }), Contains("missing"));
  CHECK_THAT(saved.refused([](TensorFile& f) {
    f.tensors.push_back({"more", Tensor::zeros({1}, DType::F32)});
  }),
             Contains("no part of a text"));
  const auto replaced = [&](const std::string& name, const Tensor& by) {
    return saved.refused([&](TensorFile& f) { tensor_of(f, name) = by; });
  };
  CHECK_THAT(replaced("scores", Tensor::zeros({1, 52}, DType::F32)), Contains("shape"));
  CHECK_THAT(replaced("scores", Tensor::zeros({1, 53}, DType::F64)), Contains("expected F32"));
  CHECK_THAT(replaced("position", Tensor::full({1}, -4, DType::I32)), Contains("position"));
  CHECK_THAT(replaced("seen", Tensor::full({2}, 53, DType::I32)), Contains("ids below 53"));
  CHECK_THAT(replaced("1.keys", Tensor::zeros({1, 5, 2, 9}, DType::F32)), Contains("shape"));
  // Fewer entries than the window sees, more than there are tokens, unlike numbers of them.
  for (const int64_t entries : {2, 100}) {
    const Tensor cache = Tensor::zeros({1, entries, 2, 8}, DType::F32);
    CHECK_THAT(saved.refused([&](TensorFile& f) {
      tensor_of(f, "1.keys") = tensor_of(f, "1.values") = cache;
    }),
               Contains("does not belong to 28 tokens"));
    CHECK_THAT(replaced("0.keys", cache), Contains("entries does not belong"));
  }
}

TEST_CASE("a text is saved as a whole, and only one at a time") {
  const SavedText saved;
  Decoder& decoder = *saved.decoder;
  TextState two = read_prompts(decoder, std::vector<std::vector<int32_t>>{{1}, {2}});
  CHECK_THAT(error_of([&] { save_text(saved.path, decoder, two, kOrigin); }),
             Contains("a single text"));
  CHECK_THAT(error_of([&] { save_text(saved.path, decoder, {}, kOrigin); }),
             Contains("a single text"));
  CHECK(read_file(saved.path) == saved.bytes);
}

}  // namespace regla::test
