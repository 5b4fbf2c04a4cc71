// Example 5: the same program on a GPU.
//
//     example_05_on_a_gpu          on the CPU
//     example_05_on_a_gpu cuda     on the GPU, one word more
//
// The device is where parameters are drawn; whatever is computed from them lies there, too. What a
// program brings (ids) and what it reads (losses, ids) is copied at the door, nothing else. An
// update is a routine: the CPU calls it, the GPU records it once and repeats it, so that the host
// only asks and, now and then, waits.

#include <cstdio>
#include <span>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "models/generation.h"
#include "text/byte_tokenizer.h"
#include "training/trainer.h"

constexpr const char* kSentence = "The state forgets what the gate lets go, and keeps the rest. ";

int main(int argc, char** argv) try {
  const regla::Device device = regla::Device::named(argc > 1 ? argv[1] : "cpu");
  regla::open_device(device);  // one clear line where there is none

  const auto tokenizer = regla::byte_tokenizer();
  std::vector<int32_t> ids;
  for (int i = 0; i < 40; ++i) {
    for (const int32_t id : tokenizer->encode(kSentence)) ids.push_back(id);
  }
  regla::TrainingConfig config;
  config.precision = regla::Precision::Bf16;  // fp32 and tf32 are the others
  config.model.layers = 2;
  config.model.hidden = 64;
  config.model.heads = 2;
  config.model.sequence_length = 60;
  config.model.dropout = 0;
  config.model.vocab = regla::padded_vocab(tokenizer->vocab_size());
  config.batch_size = 4;
  config.learning_rate = 3e-3;
  const regla::TokenStream text(ids, {});

  regla::Decoder decoder(config.model, /*seed=*/0, activation_type(config.precision), device);
  regla::Trainer trainer(config, decoder, text, tokenizer->end_of_text());
  double loss = 0;
  for (int step = 1; step <= 80; ++step) {
    trainer.step();  // asks, and goes on
    if (step != 1 && step % 20 != 0) continue;
    loss = trainer.finish().back().loss;  // waits, and reads
    std::printf("step %3d on %s   loss %.4f\n", step, device.text().c_str(), loss);
  }

  const std::vector<int32_t> prompt(ids.begin(), ids.begin() + 10);
  regla::GenerationOptions greedy;
  greedy.sampling.temperature = 0;
  greedy.max_new_tokens = 50;
  const std::vector<int32_t> said = regla::generate(decoder, prompt, greedy);
  std::printf("\n%s|%s\n", tokenizer->decode(prompt).c_str(), tokenizer->decode(said).c_str());
  return loss < 0.5 ? 0 : 1;
} catch (const regla::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
