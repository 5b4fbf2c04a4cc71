// Benchmarks of single mixers.

#include <algorithm>

#include "app/bench/cases.h"
#include "backends/copies.h"
#include "layers/mixer.h"
#include "models/decoder.h"

namespace regla::app {
namespace {

/// One mixer with random weights.
struct Bench {
  std::string name;
  std::unique_ptr<Mixer> mixer;
  ParameterList parameters;
  double weights = 0;  // elements of its matrices

  Bench(const ModelConfig& model, const MixerConfig& config, DType dtype, Device device)
      : name(name_of(config.type)) {
    const ParameterFactory make(0, dtype, device);
    mixer = make_mixer(config, {model.hidden, model.heads, 0.02, 0.02}, make, "mixer");
    mixer->parameters(parameters);
    for (const Parameter* parameter : parameters) {
      if (is_matrix(parameter->role)) weights += static_cast<double>(parameter->value.numel());
    }
  }

  double forward_flops(int64_t length) const {
    return 2 * weights + mixer->flops_per_token(length);
  }
  Tensor forward(const Tensor& x) { return mixer->chunked(x, {}, nullptr).value; }
  void forward_and_backward(const Tensor& x) {
    Tape tape;
    const Var in = tape.leaf(x);
    for (Parameter* parameter : parameters) parameter->clear_gradient();
    tape.backward({mixer->chunked(in, {}, nullptr)}, {x});
  }
};

Tensor random_activations(const Shape& shape, DType dtype, Device device) {
  return converted(random_values(shape), dtype).on(device);
}

/// The configuration's mixers, each once, then softmax attention where it is not among them.
std::vector<Bench> mixers_of(const ModelConfig& model, DType dtype, Device device) {
  std::vector<MixerConfig> configs;
  const auto add = [&](const MixerConfig& config) {
    if (std::find(configs.begin(), configs.end(), config) == configs.end()) {
      configs.push_back(config);
    }
  };
  for (int64_t layer = 0; layer < model.layers; ++layer) add(model.mixer_of(layer));
  const auto is_softmax = [](const MixerConfig& c) { return c.type == MixerType::Softmax; };
  if (std::none_of(configs.begin(), configs.end(), is_softmax)) {
    configs.push_back(preset(MixerType::Softmax));
  }
  std::vector<Bench> benches;
  for (const MixerConfig& config : configs) benches.emplace_back(model, config, dtype, device);
  return benches;
}

/// Entries [begin, end) along T of x [B, T, D].
Tensor tokens_between(const Tensor& x, int64_t begin, int64_t end) {
  Tensor part = Tensor::empty({x.dim(0), end - begin, x.dim(2)}, x.dtype(), x.device());
  copy_rows(x, begin, end - begin, part, 0);
  return part;
}

/// The tokens x [B, T, D] one after the other.
Tensor unrolled(Mixer& mixer, const Tensor& x) {
  const NoGrad guard;
  const int64_t B = x.dim(0), steps = x.dim(1), D = x.dim(2);
  MixerState state = mixer.initial_state(B);
  Tensor next;  // position
  Tensor out = Tensor::empty_like(x);
  for (int64_t t = 0; t < steps; ++t) {
    const Tensor token = tokens_between(x, t, t + 1).reshape({B, D});
    const Tensor at = segment_positions(B, 1, {}, next, x.device());
    copy_rows(mixer.step(token, at, state).reshape({B, 1, D}), 0, 1, out, t);
  }
  return out;
}

/// The second half of the tokens from the state that the first half leaves.
Tensor second_half(Mixer& mixer, const Tensor& x) {
  const NoGrad guard;
  const int64_t B = x.dim(0), steps = x.dim(1);
  MixerState state = mixer.initial_state(B);
  Tensor next;  // position
  const auto half = [&](int64_t begin, int64_t end) {
    const Tensor positions = segment_positions(B, end - begin, {}, next, x.device());
    return mixer.chunked(tokens_between(x, begin, end), {.positions = positions}, &state).value;
  };
  half(0, steps / 2);
  return half(steps / 2, steps);
}

}  // namespace

void bench_mixers(const BenchOptions& options, Measurements& out) {
  const ModelConfig& model = options.config.model;
  const DType dtype = activation_type(out.precision());
  const Tensor x = random_activations(
      {options.config.batch_size, model.sequence_length, model.hidden}, dtype, out.device());
  const double tokens = options.tokens();
  for (Bench& bench : mixers_of(model, dtype, out.device())) {
    out.check_close(bench.name, bench.forward(x), unrolled(*bench.mixer, x));
    const double flops = tokens * bench.forward_flops(model.sequence_length);
    out.time(bench.name + " forward", {tokens, flops}, [&] { bench.forward(x); });
    out.time(bench.name + " forward+backward", {tokens, 3 * flops},
             [&] { bench.forward_and_backward(x); });
    out.time(bench.name + " step by step", {tokens, flops}, [&] { unrolled(*bench.mixer, x); });
  }
}

std::vector<int64_t> segment_lengths(int64_t shortest, int64_t tokens) {
  check(tokens >= shortest && tokens % shortest == 0, "[bench] expected --longest to be a ",
        "multiple of ", shortest, ", got ", tokens);
  std::vector<int64_t> lengths;
  for (int64_t length = shortest; length <= tokens; length *= 2) {
    if (tokens % length == 0) lengths.push_back(length);
  }
  return lengths;
}

void bench_lengths(const BenchOptions& options, Measurements& out) {
  constexpr int64_t kShortest = 512;
  const ModelConfig& model = options.config.model;
  const int64_t tokens = options.longest;
  const DType dtype = activation_type(out.precision());
  std::vector<Bench> benches = mixers_of(model, dtype, out.device());
  std::vector<Piece> pieces;
  for (const int64_t length : segment_lengths(kShortest, tokens)) {
    const Tensor x =
        random_activations({tokens / length, length, model.hidden}, dtype, out.device());
    for (Bench& bench : benches) {
      const std::string name = bench.name + " T=" + std::to_string(length);
      out.check_close(name + ", whole and in two halves", second_half(*bench.mixer, x),
                      tokens_between(bench.forward(x), length / 2, length));
      const double flops = 3 * static_cast<double>(tokens) * bench.forward_flops(length);
      pieces.push_back({name, {static_cast<double>(tokens), flops}, [&bench, x] {
                          bench.forward_and_backward(x);
                        }});
    }
  }
  out.time_in_turn(pieces);
}

std::optional<double> crossing_length(const std::vector<BenchRow>& rows, const std::string& a,
                                      const std::string& b) {
  const auto seconds = [&](const std::string& name, double length) {
    const std::string full = name + " T=" + std::to_string(static_cast<int64_t>(length));
    const auto row =
        std::find_if(rows.begin(), rows.end(), [&](const BenchRow& r) { return r.name == full; });
    return row == rows.end() ? 0 : row->quantile(0.5);
  };
  double before = 0, gain_before = 0;
  std::optional<double> crossing;
  for (const BenchRow& row : rows) {
    if (!row.name.starts_with(a + " T=")) continue;
    const double length = std::stod(row.name.substr(a.size() + 3));
    const double gain = seconds(b, length) - seconds(a, length);
    if (gain <= 0) {
      crossing = std::nullopt;
    } else if (!crossing && before == 0) {
      crossing = length;  // ahead from the shortest on
    } else if (!crossing) {
      crossing = before + (length - before) * gain_before / (gain_before - gain);
    }
    before = length;
    gain_before = gain;
  }
  return crossing;
}

}  // namespace regla::app
