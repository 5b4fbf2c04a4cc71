#include "tests/layers/mixer_contract.h"
#include "tests/layers/toy/moving_average_mixer.h"

// "A new mixer" of CONTRIBUTING.md, worked out: the recurrence, the mixer and its op are in toy/,
// each where the library has it in core/recurrences/, layers/mixers/ and autograd/ops/.
namespace regla::test {
namespace {

/// 3: a line of make_mixer, beside the name in mixer_config.h.
std::unique_ptr<Mixer> make_toy(const MixerSizes& sizes, const ParameterFactory& make) {
  return std::make_unique<MovingAverageMixer>(sizes, make, "mixer");
}

/// An oracle from the paper's formula, which here is
///     o_t = sum_{s<=t} a^{t-s} (1 - a) v_s
std::vector<double> weighted_sum(const TestMixer& mixer, const Tensor& x) {
  const Tensor &W_v = mixer.parameters[0]->value, &b_v = mixer.parameters[1]->value;
  const Tensor &z = mixer.parameters[2]->value, &W_o = mixer.parameters[3]->value;
  const Tensor& b_o = mixer.parameters[4]->value;
  const int64_t D = x.dim(2), steps = x.dim(1), V = D / mixer.n.heads;
  const auto times = [&](const Tensor& W, const Tensor& bias, const double* in, int64_t row) {
    double sum = bias.data<double>()[row];
    for (int64_t i = 0; i < D; ++i) sum += W.data<double>()[row * D + i] * in[i];
    return sum;
  };
  std::vector<double> y;
  for (int64_t b = 0; b < x.dim(0); ++b) {
    const double* tokens = x.data<double>() + b * steps * D;
    for (int64_t t = 0; t < steps; ++t) {
      std::vector<double> o(static_cast<size_t>(D));
      for (int64_t j = 0; j < D; ++j) {
        const double a = 1 / (1 + std::exp(-z.data<double>()[j / V]));
        for (int64_t s = 0; s <= t; ++s) {
          o[static_cast<size_t>(j)] += std::pow(a, static_cast<double>(t - s)) * (1 - a) *
                                       times(W_v, b_v, tokens + s * D, j);
        }
      }
      for (int64_t j = 0; j < D; ++j) y.push_back(times(W_o, b_o, o.data(), j));
    }
  }
  return y;
}

}  // namespace

// 4: the contract, and the sum.
TEST_CASE("a toy mixer in its own files keeps the contract") { check_mixer_contract(make_toy); }

TEST_CASE("the toy mixer is the sum that its formula says") {
  const TestMixer mixer(make_toy, {}, DType::F64);
  const Tensor x = normal_tensor({2, 23, 12}, DType::F64, 1);
  const std::vector<double> expected = weighted_sum(mixer, x);
  for (int64_t chunk : {0, 1, 7, 23, 28}) {
    const Var y = mixer->chunked(x, {{}, chunk}, nullptr);
    CHECK(relative_error(y.value.values(), expected) < 1e-10);
  }
}

}  // namespace regla::test
