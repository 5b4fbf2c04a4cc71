#include "scoring/perplexity.h"

#include <cmath>

#include "tests/matchers.h"
#include "tests/training/support.h"

namespace regla {
namespace {

using test::kEnd;
using test::small_config;
using test::small_mixers;
using test::small_text;

/// Token t of a text is predicted from input t: `<|endoftext|>`, then the tokens before it.
std::vector<int32_t> inputs_of(const TokenStream& text) {
  std::vector<int32_t> inputs = {kEnd};
  inputs.insert(inputs.end(), text.ids().begin(), text.ids().end() - 1);
  return inputs;
}

double nats_of(const std::vector<double>& scores, int32_t target) {
  double sum = 0;
  for (const double score : scores) sum += std::exp(score);
  return std::log(sum) - scores[static_cast<size_t>(target)];
}

/// Each token's context read one token after the other from where it begins, which it goes on from
/// where that of the token before began there, too: an independent statement of what both kinds of
/// context mean.
double naive(Decoder& decoder, const TokenStream& text, const EvaluationOptions& options) {
  const std::vector<int32_t> inputs = inputs_of(text);
  const int64_t T = options.length, stride = std::max<int64_t>(1, T / 2);
  double nats = 0;
  int64_t begin = 0, next = 0;  // of the context, and what was not read of it yet
  DecoderState state = decoder.initial_state(1);
  for (int64_t t = 0; t < static_cast<int64_t>(inputs.size()); ++t) {
    const int64_t before = begin;
    if (options.context == Context::Window) {
      while (begin + T <= t) begin += stride;
    }
    if (begin != before) {
      state = decoder.initial_state(1);
      next = begin;
    }
    Tensor logits;
    for (; next <= t; ++next) {
      const int32_t id = inputs[static_cast<size_t>(next)];
      if (options.reset_at_documents && id == kEnd) state = decoder.initial_state(1);
      logits = decoder.step(Tensor::of({1}, std::vector<int32_t>{id}), state);
    }
    nats += nats_of(logits.values(), text.ids()[static_cast<size_t>(t)]);
  }
  return nats;
}

}  // namespace

TEST_CASE("every token is scored once, from the context that is promised") {
  for (const std::string& mixer : small_mixers()) {
    Decoder decoder(small_config(mixer).model, 3, DType::F64);
    for (const int64_t count : {1, 3, 8, 9, 41}) {
      for (const int64_t length : {1, 7, 8}) {
        for (const Context context : {Context::Window, Context::Carried}) {
          for (const bool resets : {false, true}) {
            const TokenStream text = small_text(count);
            const EvaluationOptions options = {
                .context = context, .length = length, .batch = 3, .reset_at_documents = resets};
            const Evaluation result = evaluate(decoder, text, kEnd, options);
            CAPTURE(mixer, count, length, name_of(context), resets);
            CHECK(result.tokens == count);
            CHECK(result.nats == Approx(naive(decoder, text, options)).epsilon(1e-10));
          }
        }
      }
    }
  }
}

TEST_CASE("perplexities and bits follow from the sum") {
  Evaluation result;
  result.tokens = 10;
  result.nats = 20;
  result.bytes = 40;
  result.words = 5;
  CHECK(result.loss() == 2);
  CHECK(result.perplexity() == Approx(std::exp(2)));
  CHECK(result.word_perplexity() == Approx(std::exp(4)));
  CHECK(result.bits_per_byte() == Approx(20 / std::log(2) / 40));
}

TEST_CASE("words count line ends, and a part of a split counts in proportion") {
  Decoder decoder(small_config(R"("regla")").model, 3, DType::F64);
  const TokenStream text = small_text(100);
  EvaluationOptions options = {.length = 8, .batch = 2};
  CHECK(evaluate(decoder, text, kEnd, options).words == 107);
  CHECK(evaluate(decoder, text, kEnd, options).bytes == 500);
  options.max_batches = 3;
  const Evaluation part = evaluate(decoder, text, kEnd, options);
  CHECK(part.tokens == 8 + 5 * 4);
  CHECK(part.bytes == Approx(500 * 0.28));
}

TEST_CASE("an evaluation can be ended") {
  Decoder decoder(small_config(R"("regla")").model, 3, DType::F64);
  const Evaluation result = evaluate(decoder, small_text(100), kEnd, {.length = 8},
                                     [](int64_t done, int64_t) { return done < 40; });
  CHECK_FALSE(result.complete);
  CHECK(result.tokens < 100);
}

TEST_CASE("what cannot be evaluated is refused") {
  Decoder softmax(small_config(R"("softmax")").model, 3, DType::F64);
  const TokenStream text = small_text(20);
  CHECK_THROWS_WITH(evaluate(softmax, text, kEnd, {.context = Context::Carried}),
                    Contains("mixer.window"));
  CHECK_THROWS_AS(evaluate(softmax, TokenStream({}, {}), kEnd, {}), Error);
  CHECK_THROWS_AS(evaluate(softmax, text, kEnd, {.length = 0}), Error);
}

}  // namespace regla
