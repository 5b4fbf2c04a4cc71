// Benchmarks of whole decoders.

#include <algorithm>

#include "app/bench/training.h"
#include "models/generation.h"
#include "models/inspection.h"

namespace regla::app {
namespace {

/// The smallest number of equal parts of a batch above 1; 1 for a single sequence.
int64_t parts_of(int64_t batch) {
  for (int64_t parts = 2; parts <= batch; ++parts) {
    if (batch % parts == 0) return parts;
  }
  return 1;
}

Tensor pair_of(const StepResult& step) {
  return Tensor::of({2}, std::vector<double>{step.loss, step.gradient_norm});
}

/// An update is that of the same batch in parts and in other chunks.
void check_update(const TrainingConfig& config, const Measurements& out) {
  TrainingConfig other = config;
  other.micro_batches = parts_of(config.batch_size);
  for (MixerConfig& mixer : other.model.mixer) mixer.chunk = 8;
  const auto first_update = [&](const TrainingConfig& c) {
    Training training(c, out.device());
    training.trainer.step();
    return pair_of(training.trainer.finish().front());
  };
  out.check_close("an update, whole and in parts", first_update(other), first_update(config));
}

/// The weights that every token reads: all but the embedding, of which it reads a row.
Tensors weights_read(const Decoder& decoder) {
  Tensors weights;
  for (const Parameter* parameter : decoder.parameters()) {
    const bool looked_up = !decoder.config().tie_embeddings && parameter->name == "embed_in.weight";
    if (!looked_up) weights.push_back(parameter->factor());
  }
  return weights;
}

/// Texts of 2^6, 2^7 ... tokens, up to `longest`, of every sequence of a batch, drawn on the device
/// without the host reading them. `bytes`: of the weights. What is done once for a text, to record
/// the work for a token, is a part of it.
void time_texts(Decoder& decoder, int64_t batch, int64_t longest, double bytes,
                const std::string& suffix, Measurements& out) {
  constexpr int64_t kShortest = 64;
  const Tensor start = Tensor::zeros({batch}, DType::I32, decoder.device());
  for (int64_t length = kShortest; length <= longest; length *= 2) {
    const GenerationOptions options = {.sampling = {.temperature = 0}, .max_new_tokens = length};
    const auto tokens = static_cast<double>(length);
    out.time("text of " + std::to_string(length) + suffix,
             {.tokens = tokens * static_cast<double>(batch), .bytes = tokens * bytes}, [&] {
               DecoderState state = decoder.initial_state(batch);
               decoder.reserve(state, length + 1);
               const Tensor scores = decoder.step(start, state);
               Continuation text(decoder, std::move(state), scores, options);
               while (text.asked() < length) text.advance();
               text.ids(length - 1);
             });
  }
}

}  // namespace

void bench_train(const BenchOptions& options, Measurements& out) {
  const TrainingConfig config = options.training();
  check_update(config, out);
  Training training(config, options.device());
  const double tokens = options.tokens();
  const double flops = training_flops_per_token(training.decoder, config.model.sequence_length);
  out.time("update", {.tokens = tokens, .flops = tokens * flops}, [&] { training.trainer.step(); });
  training.trainer.finish();
}

void bench_decode(const BenchOptions& options, Measurements& out) {
  constexpr int64_t kTokens = 32, kLongestCheck = 200;
  const NoGrad guard;
  const ModelConfig& model = options.config.model;
  const int64_t length = model.sequence_length;
  const Device device = options.device();
  const DType activations = activation_type(out.precision());
  Decoder decoder(model, 0, activations, device);
  const std::vector<int32_t> ids = random_ids(length, model.vocab);
  const Tensor prompt = decoder.ids({1, length}, ids);
  const int64_t checked = std::min(length, kLongestCheck);
  const Tensor start =
      Tensor::of({1, checked}, std::vector<int32_t>(ids.begin(), ids.begin() + checked));
  {
    // In F32: in BF16 each form rounds at every op, the more the more layers there are.
    Decoder exact(model, 0, DType::F32, device);
    out.check_close("decoding, token by token and in chunks", all_logits(exact, start, Form::Step),
                    all_logits(exact, start));
  }
  const double flops = forward_flops_per_token(decoder, length);
  const double head = 2.0 * static_cast<double>(model.vocab * model.hidden);
  const auto tokens = static_cast<double>(length);
  // The scores of a prompt's tokens are not computed.
  out.time("prompt", {.tokens = tokens, .flops = (flops - head) * tokens}, [&] {
    DecoderState state = decoder.initial_state(1);
    decoder.hidden(prompt, {}, &state);
  });
  DecoderState state = decoder.initial_state(1);
  decoder.hidden(prompt, {}, &state);
  const Tensor id = decoder.ids({1}, {0});
  for (const DType dtype : {DType::F32, DType::BF16}) {
    if (dtype == DType::F32 && activations == DType::BF16) continue;
    decoder.store_weights(dtype);
    const bool halved = dtype != activations;
    const Tensors weights = weights_read(decoder);
    double bytes = 0;
    for (const Tensor& weight : weights) bytes += static_cast<double>(weight.bytes());
    // What a token costs at least: how fast the CPU's memory is depends on where it lies.
    if (device.is_cpu()) {
      out.time(halved ? "reading bf16 weights" : "reading weights", {.bytes = bytes}, [&] {
        for (const Tensor& weight : weights) sum_of_words(weight);
      });
    }
    out.time(halved ? "next token, bf16 weights" : "next token",
             {.tokens = kTokens, .flops = flops * kTokens, .bytes = bytes * kTokens}, [&] {
               for (int64_t i = 0; i < kTokens; ++i) decoder.step(id, state);
             });
    // Batches of texts take a CPU long.
    const std::string weights_are = halved ? ", bf16 weights" : "";
    if (!device.is_cpu() || options.config.batch_size == 1) {
      time_texts(decoder, options.config.batch_size, length, bytes, weights_are, out);
    }
  }
}

}  // namespace regla::app
