#include "app/bench_cases.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "backends/kernels.h"
#include "core/parallel.h"
#include "core/random.h"
#include "models/generation.h"
#include "models/inspection.h"
#include "training/trainer.h"

namespace regla::app {
namespace {

constexpr double kTolerance = 1e-4;  // float

template <class F>
BenchRow timed(const std::string& name, double tokens, double flops, int64_t repeats, F&& f) {
  BenchRow row{name, tokens, flops, {}};
  f();  // fills caches and the allocator
  for (int64_t i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    row.seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(row.seconds.begin(), row.seconds.end());
  return row;
}

/// Throws unless max|a - b| / max|b| is that of rounding.
void check_close(const std::string& what, const Tensor& a, const Tensor& b) {
  const std::vector<double> x = a.values(), y = b.values();
  double difference = 0, largest = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    difference = std::max(difference, std::abs(x[i] - y[i]));
    largest = std::max(largest, std::abs(y[i]));
  }
  check(difference <= kTolerance * largest, "[bench] ", what, ": two forms differ by ",
        difference / largest, ", more than ", kTolerance, "; no time is given");
}

Tensor random_values(const Shape& shape) {
  Tensor x = Tensor::empty(shape, DType::F32);
  const Random random(1, 0);
  for (int64_t i = 0; i < x.numel(); ++i) {
    x.data<float>()[i] = static_cast<float>(random.normal(static_cast<uint64_t>(i)));
  }
  return x;
}

std::vector<int32_t> random_ids(int64_t count, int64_t vocab) {
  std::vector<int32_t> ids;
  const Random random(2, 0);
  for (int64_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<int32_t>(random.uniform(static_cast<uint64_t>(i)) *
                                       static_cast<double>(vocab)));
  }
  return ids;
}

TrainingConfig config_of(const BenchOptions& options, const std::string& mixer) {
  TrainingConfig config;
  config.batch_size = options.batch;
  config.model.layers = options.layers;
  config.model.hidden = options.hidden;
  config.model.heads = options.heads;
  config.model.vocab = options.vocab;
  config.model.sequence_length = options.length;
  config.model.dropout = 0;
  MixerConfig choice;
  choice.type = mixer == "softmax" ? MixerType::Softmax : MixerType::Regla;
  config.model.mixer = {choice};
  config.validate();
  return config;
}

/// The tokens x [B, T, D] one after the other.
Tensor unrolled(Mixer& mixer, const Tensor& x) {
  const NoGrad guard;
  const int64_t B = x.dim(0), steps = x.dim(1), D = x.dim(2);
  MixerState state = mixer.initial_state(B);
  Tensor out = Tensor::empty(x.shape(), x.dtype());
  for (int64_t t = 0; t < steps; ++t) {
    Tensor token = Tensor::empty({B, D}, x.dtype());
    for (int64_t b = 0; b < B; ++b) {
      std::copy_n(x.data<float>() + (b * steps + t) * D, D, token.data<float>() + b * D);
    }
    const Tensor y = mixer.step(token, state);
    for (int64_t b = 0; b < B; ++b) {
      std::copy_n(y.data<float>() + b * D, D, out.data<float>() + (b * steps + t) * D);
    }
  }
  return out;
}

}  // namespace

std::vector<BenchRow> bench_mixers(const BenchOptions& options) {
  std::vector<BenchRow> rows;
  for (const std::string& name : options.mixers) {
    const ModelConfig model = config_of(options, name).model;
    const ParameterFactory make(0, DType::F32);
    const auto mixer =
        make_mixer(model.mixer_of(0), {model.hidden, model.heads, 0.02, 0.02}, make, "mixer");
    const Tensor x = random_values({options.batch, options.length, model.hidden});
    check_close(name, mixer->chunked(x, {}, nullptr).value, unrolled(*mixer, x));
    ParameterList parameters;
    mixer->parameters(parameters);
    double flops = mixer->flops_per_token(options.length);
    for (const Parameter* parameter : parameters) {
      if (parameter->decay) flops += 2 * static_cast<double>(parameter->value.numel());
    }
    const double tokens = static_cast<double>(options.batch * options.length);
    rows.push_back(timed(name + " forward", tokens, flops * tokens, options.repeats,
                         [&] { mixer->chunked(x, {}, nullptr); }));
    rows.push_back(
        timed(name + " forward+backward", tokens, 3 * flops * tokens, options.repeats, [&] {
          Tape tape;
          const Var in = tape.leaf(x);
          for (Parameter* parameter : parameters) parameter->clear_gradient();
          tape.backward({mixer->chunked(in, {}, nullptr)}, {x});
        }));
    rows.push_back(timed(name + " step by step", tokens, flops * tokens,
                         std::min<int64_t>(options.repeats, 3), [&] { unrolled(*mixer, x); }));
  }
  return rows;
}

std::vector<BenchRow> bench_train(const BenchOptions& options) {
  std::vector<BenchRow> rows;
  const int64_t batches = options.repeats + 2;
  const TokenStream text(random_ids(batches * options.batch * options.length + 1, options.vocab),
                         {});
  for (const std::string& name : options.mixers) {
    TrainingConfig config = config_of(options, name);
    Decoder decoder(config.model, 0), other(config.model, 0);
    Trainer trainer(config, decoder, text, 0);
    if (options.batch % 2 == 0) config.micro_batches = 2;
    Trainer halves(config, other, text, 0);
    const StepResult a = halves.step(), b = trainer.step();
    check_close(name + ", batch in two parts",
                Tensor::of({2}, std::vector<double>{a.loss, a.gradient_norm}),
                Tensor::of({2}, std::vector<double>{b.loss, b.gradient_norm}));
    const double tokens = static_cast<double>(trainer.tokens_per_step());
    rows.push_back(timed(name + " update", tokens,
                         tokens * training_flops_per_token(decoder, options.length),
                         options.repeats, [&] { trainer.step(); }));
  }
  return rows;
}

std::vector<BenchRow> bench_decode(const BenchOptions& options) {
  std::vector<BenchRow> rows;
  constexpr int64_t kTokens = 32;
  for (const std::string& name : options.mixers) {
    Decoder decoder(config_of(options, name).model, 0);
    const NoGrad guard;
    const Tensor prompt =
        Tensor::of({1, options.length}, random_ids(options.length, options.vocab));
    check_close(name + " by step", all_logits(decoder, prompt, Form::Step),
                all_logits(decoder, prompt));
    const double flops = forward_flops_per_token(decoder, options.length);
    const double length = static_cast<double>(options.length);
    rows.push_back(timed(name + " prompt", length, flops * length, options.repeats, [&] {
      DecoderState state = decoder.initial_state(1);
      decoder.hidden(prompt, {}, &state);
    }));
    DecoderState state = decoder.initial_state(1);
    decoder.hidden(prompt, {}, &state);
    const Tensor id = Tensor::of({1}, std::vector<int32_t>{0});
    rows.push_back(timed(name + " next token", kTokens, flops * kTokens, options.repeats, [&] {
      for (int64_t i = 0; i < kTokens; ++i) decoder.step(id, state);
    }));
  }
  return rows;
}

double sgemm_peak() {
  constexpr int64_t kSize = 1536, kTrials = 10;
  const Tensor a = random_values({kSize, kSize}), b = random_values({kSize, kSize});
  const Tensor c = Tensor::empty({kSize, kSize}, DType::F32);
  double best = 0;
  for (int64_t trial = 0; trial < kTrials; ++trial) {
    const auto start = std::chrono::steady_clock::now();
    kernels({}).matmul({.a = a, .b = b, .bias = {}}, Sink{c});
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, 2.0 * kSize * kSize * kSize / seconds / 1e9);
  }
  return best;
}

}  // namespace regla::app
