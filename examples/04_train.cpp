// Example 4: a language model in one page.
//
// A small ReGLA decoder learns one sentence by heart, byte by byte, and says it again:
//
//     x = embed(ids);   x += mixer(norm1(x)), x += mlp(norm2(x)) per layer;   logits = norm(x) E^T
//     loss = - mean over t of log softmax(logits_t)[id_{t+1}]
//
// Training runs the chunked form over the whole sentence at once, saying it back runs `step`, one
// token after the other with nothing but the state S of each layer handed on.

#include <algorithm>
#include <cstdio>
#include <span>
#include <vector>

#include "models/decoder.h"
#include "text/byte_tokenizer.h"
#include "training/optimizer.h"

using regla::Tensor;

constexpr const char* kSentence = "The state forgets what the gate lets go, and keeps the rest.";

Tensor row(const std::vector<int32_t>& ids, size_t begin, size_t end) {
  const std::vector<int32_t> part(ids.begin() + static_cast<std::ptrdiff_t>(begin),
                                  ids.begin() + static_cast<std::ptrdiff_t>(end));
  return Tensor::of({1, static_cast<int64_t>(part.size())}, part);
}

int main() {
  const auto tokenizer = regla::byte_tokenizer();
  std::vector<int32_t> ids = {tokenizer->end_of_text()};
  for (const int32_t id : tokenizer->encode(kSentence)) ids.push_back(id);
  const Tensor inputs = row(ids, 0, ids.size() - 1), targets = row(ids, 1, ids.size());

  regla::TrainingConfig config;
  config.model.layers = 2;
  config.model.hidden = 64;
  config.model.heads = 2;
  config.model.vocab = regla::padded_vocab(tokenizer->vocab_size());
  regla::Decoder decoder(config.model, /*seed=*/0);
  regla::AdamW optimizer(decoder.parameters(), config);

  const Tensor report = Tensor::zeros({3}, regla::DType::F64);  // loss, norm, factor
  double loss_value = 0;
  for (int step = 1; step <= 80; ++step) {
    optimizer.clear_gradients();
    regla::Tape tape;
    const regla::Var loss = decoder.loss(decoder.hidden(inputs), targets);
    tape.backward(loss);
    optimizer.clip(loss.value, /*largest=*/1, report);
    const Tensor rates = Tensor::of({3}, optimizer.rates(step, /*learning_rate=*/3e-3));
    optimizer.update(rates, report.slice(2, 3));
    loss_value = report.values()[0];
    if (step == 1 || step % 20 == 0) std::printf("step %3d   loss %.4f\n", step, loss_value);
  }

  // Greedy decoding from the end-of-text token.
  regla::DecoderState state = decoder.initial_state(/*batch=*/1);
  std::vector<int32_t> said = {ids[0]};
  while (said.size() < ids.size()) {
    const std::vector<double> scores =
        decoder.step(Tensor::of({1}, std::vector<int32_t>{said.back()}), state).values();
    said.push_back(
        static_cast<int32_t>(std::max_element(scores.begin(), scores.end()) - scores.begin()));
  }
  std::printf("\n%s\n", tokenizer->decode(std::span(said).subspan(1)).c_str());
  return loss_value < 0.05 && said == ids ? 0 : 1;
}
