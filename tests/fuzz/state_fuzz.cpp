// libFuzzer target: any bytes as state.json and as optimizer.safetensors of a small training that
// carries its state. Only regla::Error may come out, and a training that was restored can go on.
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "core/check.h"
#include "text/byte_tokenizer.h"
#include "training/checkpoint.h"

namespace {

namespace fs = std::filesystem;

const char* const kConfig = R"({"layers": 2, "hidden": 4, "heads": 1, "mlp": 4, "batch_size": 1,
    "sequence_length": 4, "carry_state": true, "reset_at_documents": true, "dropout": 0,
    "vocab": 257, "tokenizer": "byte", "mixer": ["regla", {"type": "softmax", "window": 6}]})";

struct Training {
  fs::path folder = fs::temp_directory_path() / ("regla-fuzz-" + std::to_string(::getpid()));
  regla::Model model = regla::make_model(regla::from_json(kConfig), regla::byte_tokenizer());
  regla::TokenStream text =
      regla::tokenize_text("Some text that is long enough for steps.", *model.tokenizer);

  Training() { fs::create_directories(folder); }
  ~Training() { fs::remove_all(folder); }

  regla::Trainer trainer() { return {model.config, *model.decoder, text, 256}; }
  void write(const char* file, const uint8_t* data, size_t size) const {
    std::ofstream(folder / file, std::ios::binary)
        .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Training training;
  // REGLA_FUZZ_SEED names a file to write a whole optimizer.safetensors to, to begin from.
  static const bool seeded = [] {
    if (const char* seed = std::getenv("REGLA_FUZZ_SEED")) {
      regla::Trainer trainer = training.trainer();
      trainer.step();
      regla::write_training(training.folder, training.model, trainer, {});
      fs::copy_file(training.folder / "optimizer.safetensors", seed,
                    fs::copy_options::overwrite_existing);
    }
    return true;
  }();
  static_cast<void>(seeded);
  training.write("state.json", data, size);
  training.write("optimizer.safetensors", data, size);
  regla::TrainingState state;
  state.step = 1;
  try {
    state = regla::read_training_state(training.folder);
  } catch (const regla::Error&) {
  }
  try {
    regla::Trainer trainer = training.trainer();
    regla::restore_training(training.folder, trainer, state);
    trainer.step();
  } catch (const regla::Error&) {
  }
  return 0;
}
