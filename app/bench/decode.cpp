// Decoding: what a token of one model costs, and texts of several mixers side by side.

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>

#include "app/bench/cases.h"
#include "app/command.h"
#include "models/generation.h"
#include "models/inspection.h"

namespace regla::app {
namespace {

// For all timings of a row together, if more than one fits.
constexpr double kTokenSeconds = 3, kTextSeconds = 0.5;

constexpr const char *kPrompt = "prompt", *kNextToken = "next token";

enum class Weights { All, Read };

/// All weights, or those that every token reads: all but the embedding, of which it reads a row.
Tensors weights_of(const Decoder& decoder, Weights which) {
  Tensors weights;
  for (const Parameter* parameter : decoder.parameters()) {
    const bool looked_up = !decoder.config().tie_embeddings && parameter->name == "embed_in.weight";
    if (which == Weights::All || !looked_up) weights.push_back(parameter->factor());
  }
  return weights;
}

int64_t bytes_of(const Tensors& weights) {
  return std::transform_reduce(weights.begin(), weights.end(), int64_t{0}, std::plus<>(),
                               [](const Tensor& weight) { return weight.bytes(); });
}

/// In F32: in BF16 each form rounds at every op, the more the more layers there are. In F64 where
/// scores change sign: a head's output may nearly vanish, and its norm then magnifies what F32 lost
/// in the sum, 1e-4 of the largest score in either form.
DType type_of_check(const ModelConfig& model) {
  bool changes = false;
  for (const MixerConfig& mixer : model.mixer) {
    changes = changes || (mixer.type != MixerType::Softmax && changes_sign(mixer.feature_map));
  }
  return changes ? DType::F64 : DType::F32;
}

void check_forms(Decoder& decoder, const Measurements& out) {
  constexpr int64_t kLongest = 200;
  const ModelConfig& model = decoder.config();
  std::optional<Decoder> exact;
  const DType type = type_of_check(model);
  if (decoder.dtype() != type) exact.emplace(model, 0, type, out.device());
  Decoder& checked = exact ? *exact : decoder;
  const int64_t length = std::min(model.sequence_length, kLongest);
  const Tensor ids = Tensor::of({1, length}, random_ids(length, model.vocab));
  out.check_close("decoding, token by token and in chunks", all_logits(checked, ids, Form::Step),
                  all_logits(checked, ids));
}

/// Tokens behind a prompt as a text is written, by the work that the device has recorded.
void time_next_token(Decoder& decoder, const TextState& prompt, Work token,
                     const std::string& suffix, Measurements& out) {
  constexpr int64_t kTokens = 32;
  const GenerationOptions options = {.sampling = {.temperature = 0},
                                     .max_new_tokens = kTokens * (out.repeats() + 2)};
  TextState copy = prompt;
  copy.state = prompt.state.clone();
  Continuation text(decoder, std::move(copy), options);
  const auto write = [&] {
    for (int64_t i = 0; i < kTokens; ++i) text.advance();
  };
  write();
  token = {.tokens = kTokens, .flops = token.flops * kTokens, .bytes = token.bytes * kTokens};
  out.time_rounds({{kNextToken + suffix, token, write}}, kTokenSeconds)[0].peak_memory +=
      bytes_of(weights_of(decoder, Weights::All));
}

/// The prompt and the next token of the configured model, for one sequence.
void time_tokens(const ModelConfig& model, Measurements& out) {
  const int64_t length = model.sequence_length;
  const DType activations = activation_type(out.precision());
  Decoder decoder(model, 0, activations, out.device());
  check_forms(decoder, out);
  const std::vector<std::vector<int32_t>> ids = {random_ids(length, model.vocab)};
  const double flops = forward_flops_per_token(decoder, length);
  const double head = 2.0 * static_cast<double>(model.vocab * model.hidden);
  const auto tokens = static_cast<double>(length);
  // The scores of the last token alone are computed.
  TextState prompt;
  const auto read = [&] { prompt = read_prompts(decoder, ids); };
  if (out.wants(kPrompt)) {
    out.time(kPrompt, {.tokens = tokens, .flops = (flops - head) * tokens + head}, read);
  } else {
    read();
  }
  if (!out.wants(kNextToken)) return;
  for (const DType dtype : {DType::F32, DType::BF16}) {
    if (dtype == DType::F32 && activations == DType::BF16) continue;
    decoder.store_weights(dtype);
    const bool halved = dtype != activations;
    const Tensors weights = weights_of(decoder, Weights::Read);
    const auto bytes = static_cast<double>(bytes_of(weights));
    // What a token costs at least: how fast the CPU's memory is depends on where it lies.
    if (out.device().is_cpu()) {
      out.time(halved ? "reading bf16 weights" : "reading weights", {.bytes = bytes}, [&] {
        for (const Tensor& weight : weights) sum_of_words(weight);
      });
    }
    time_next_token(decoder, prompt, {.flops = flops, .bytes = bytes},
                    halved ? ", bf16 weights" : "", out);
  }
}

/// The model with another mixer, which turns queries and keys as the configured one does.
ModelConfig with_mixer(ModelConfig model, MixerType type) {
  MixerConfig mixer = preset(type);
  mixer.rope = model.mixer[0].rope;
  model.mixer = {mixer};
  return model;
}

/// A model whose texts are timed.
struct Writer {
  std::string name;
  Decoder decoder;
  double bytes;             // of the weights that a token reads
  int64_t state_bytes = 0;  // of the text written last

  Writer(const ModelConfig& model, MixerType type, const Measurements& out)
      : name(name_of(type)),
        decoder(with_mixer(model, type), 0, activation_type(out.precision()), out.device()),
        bytes(static_cast<double>(bytes_of(weights_of(decoder, Weights::Read)))) {
    check_forms(decoder, out);
    if (decoder.dtype() == DType::BF16) decoder.store_weights(DType::BF16);
  }

  /// Writes so many tokens of each sequence behind a short prompt; the host reads none but the
  /// last. What is done once for a text, to record the work for a token, is a part of it.
  void write(int64_t batch, int64_t length) {
    constexpr int64_t kShortPrompt = 5;
    const std::vector<int32_t> prompt = random_ids(kShortPrompt, decoder.config().vocab);
    const std::vector<std::vector<int32_t>> prompts(static_cast<size_t>(batch), prompt);
    const GenerationOptions options = {.sampling = {.temperature = 0}, .max_new_tokens = length};
    Continuation text(decoder, read_prompts(decoder, prompts), options);
    while (text.asked() < length) text.advance();
    text.ids(length - 1);
    state_bytes = text.state().bytes();
  }
};

/// Texts of 2^6, 2^7 ... tokens of each mixer of the paper's Figure 5.
void time_texts(const BenchOptions& options, Measurements& out) {
  constexpr int64_t kShortest = 64;
  const int64_t batch = options.config.batch_size;
  std::vector<std::unique_ptr<Writer>> writers;
  for (const MixerType type : {MixerType::Softmax, MixerType::FastDecay, MixerType::Regla}) {
    if (!out.wants(std::string(name_of(type)))) continue;
    writers.push_back(std::make_unique<Writer>(options.config.model, type, out));
    writers.back()->write(batch, kShortest);  // fills caches and heaps
  }
  for (int64_t length = kShortest; length <= options.longest_text; length *= 2) {
    const auto tokens = static_cast<double>(length);
    std::vector<Piece> pieces;
    for (size_t i = 0; i < writers.size(); ++i) {
      Writer& writer = *writers[i];
      pieces.push_back(
          {writer.name + " T=" + std::to_string(length),
           {.tokens = tokens * static_cast<double>(batch), .bytes = tokens * writer.bytes},
           [&writer, batch, length] { writer.write(batch, length); }});
    }
    const std::span<BenchRow> rows = out.time_rounds(pieces, kTextSeconds);
    std::string line;
    for (size_t i = 0; i < writers.size(); ++i) {
      rows[i].peak_memory += bytes_of(weights_of(writers[i]->decoder, Weights::All));
      rows[i].state_bytes = writers[i]->state_bytes;
      line += (i > 0 ? ", " : "") + rows[i].name + " " + rounded(rows[i].quantile(0.5), 3) + " s";
    }
    print_line(stderr, line);
  }
}

}  // namespace

void bench_decode(const BenchOptions& options, Measurements& out) {
  const NoGrad guard;
  if (out.wants(kPrompt) || out.wants(kNextToken)) time_tokens(options.config.model, out);
  time_texts(options, out);
}

}  // namespace regla::app
