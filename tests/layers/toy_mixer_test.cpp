#include <optional>

#include "tests/bfloat16.h"
#include "tests/gpu.h"
#include "tests/layers/mixer_contract.h"
#include "tests/layers/toy/smooth_maximum.h"
#include "tests/layers/toy/smooth_maximum_mixer.h"
#include "tests/op_sample.h"
#include "tests/walled_device.h"

// "A new mixer" of CONTRIBUTING.md, worked out: the cell, its kernels and the mixer are in toy/,
// each where the library has it in core/recurrences/, backends/ and layers/mixers/.
namespace regla::test {
namespace {

using recurrence::SmoothMaximum;

/// 4: a line of make_mixer, beside the name in mixer_config.h.
std::unique_ptr<Mixer> make_toy(const MixerSizes& sizes, const ParameterFactory& make) {
  return std::make_unique<SmoothMaximumMixer>(sizes, make, "mixer");
}

/// An oracle from the paper's formula, which here is, with D_st the product of the decays after s
/// through t,
///     o_t[j] = sum_i q_t[i] log(D_0t + sum_{s<=t} D_st e^{k_s[i] + v_s[j]})
std::vector<double> unrolled(const TestMixer& mixer, const Tensor& x) {
  const int64_t D = x.dim(2), steps = x.dim(1), K = D / mixer.n.heads;
  const auto times = [&](size_t number, const double* in, int64_t row) {
    const double* W = mixer.parameters[2 * number]->value.data<double>() + row * D;
    double sum = mixer.parameters[2 * number + 1]->value.data<double>()[row];
    for (int64_t i = 0; i < D; ++i) sum += W[i] * in[i];
    return sum;
  };
  enum { Query, Key, Value, Gate, Output };
  std::vector<double> y;
  for (int64_t b = 0; b < x.dim(0); ++b) {
    const auto token = [&](int64_t t) { return x.data<double>() + (b * steps + t) * D; };
    for (int64_t t = 0; t < steps; ++t) {
      std::vector<double> o(static_cast<size_t>(D));
      for (int64_t c = 0; c < D; ++c) {
        for (int64_t i = c / K * K; i < (c / K + 1) * K; ++i) {
          double sum = 0, decay = 1;
          for (int64_t s = t; s >= 0; --s) {
            sum += decay * std::exp(times(Key, token(s), i) + times(Value, token(s), c));
            decay /= 1 + std::exp(-times(Gate, token(s), c / K));
          }
          o[static_cast<size_t>(c)] += times(Query, token(t), i) * std::log(decay + sum);
        }
      }
      for (int64_t c = 0; c < D; ++c) y.push_back(times(Output, o.data(), c));
    }
  }
  return y;
}

/// The recurrence from a state, with resets, over more than one span of tokens.
OpSample sample_of(int64_t T, int64_t K, int64_t V) {
  const Shape keys = {2, T, 3, K}, values = {2, T, 3, V};
  return {"smooth_maximum",
          "",
          {{keys},
           {keys, -1, 1},
           {values},
           sums({2, T, 3}, -1.5, 0),
           sums({2, 3, K, V}),
           integers(random_mask({2, T}, 5, 0.1))},
          [](const Vars& in) -> Vars {
            const Recurrence out =
                run_cell<SmoothMaximum>({{in[0], in[1]}, {in[2]}, {in[3]}}, in[5].value, in[4]);
            return {out.o, out.state};
          },
          "AS"};
}

void check_contract(Device device) { check_mixer_contract(make_toy, false, {.device = device}); }

}  // namespace

// 5: the contract, and the sum.
TEST_CASE("a toy mixer in its own files keeps the contract") { check_contract({}); }

TEST_CASE("the toy mixer keeps the contract behind the wall") { check_contract(walled_device()); }

TEST_CASE("the toy mixer keeps the contract on a GPU", "[cuda]") {
  if (const std::optional<Device> device = gpu()) check_contract(*device);
}

TEST_CASE("the toy mixer is the sum that its formula says") {
  const TestMixer mixer(make_toy, {}, DType::F64);
  const Tensor x = normal_tensor({2, 23, 12}, DType::F64, 1);
  CHECK(relative_error(mixer->chunked(x, {}, nullptr).value.values(), unrolled(mixer, x)) < 1e-10);
}

TEST_CASE("gradients of the toy's cell are those of finite differences") {
  const OpSample sample = sample_of(66, 2, 3);
  Tensors values = sample.make(DType::F64);
  const Result result = run(sample, values, 100);
  const Tensors d = cotangents({result.outputs.begin(), result.outputs.end()}, 100);
  for (size_t n = 0; n < 5; ++n) {
    INFO("input " << n);
    std::vector<double> numeric;
    for (int64_t i = 0; i < values[n].numel(); ++i) {
      numeric.push_back(slope(values[n], i, [&] {
        const Vars out = sample.apply(Vars(values.begin(), values.end()));
        return dot(out[0].value, d[0]) + dot(out[1].value, d[1]);
      }));
    }
    CHECK(relative_error(result.gradients[n].values(), numeric) < 1e-7);
  }
}

TEST_CASE("the toy's cell in BF16 rounds no more than its results") {
  const OpSample sample = sample_of(70, 5, 6);
  Tensors narrow = sample.make(DType::BF16), wide;
  for (const Tensor& x : narrow)
    wide.push_back(x.dtype() == DType::BF16 ? converted(x, DType::F32) : x);
  const Result got = run(sample, narrow, 200),
               wanted = run(sample, wide, [&](const Vars&out) {
                 Tensors d = cotangents({got.outputs.begin(), got.outputs.end()}, 200);
                 for (size_t i = 0; i < d.size(); ++i) d[i] = converted(d[i], out[i].value.dtype());
                 return d;
               });
  for (size_t i = 0; i < got.outputs.size(); ++i) {
    CHECK(relative_error(got.outputs[i], wanted.outputs[i]) < 4e-3);
  }
  for (size_t i = 0; i < 5; ++i) {
    INFO("gradient " << i);
    CHECK(relative_error(got.gradients[i], wanted.gradients[i]) < 4e-3);
  }
}

TEST_CASE("a GPU runs the toy's cell as the CPU does", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  // The last two: columns in several turns of a block, states beyond shared memory.
  for (const auto& [T, K, V] : std::vector<std::array<int64_t, 3>>{
           {1, 4, 5}, {65, 33, 20}, {130, 64, 64}, {70, 10, 130}, {66, 200, 140}}) {
    const OpSample sample = sample_of(T, K, V);
    for (const DType type : {DType::F64, DType::F32, DType::BF16}) {
      const Result got = run(sample, sample.make(type, *device), 300);
      const Result wanted = run(sample, sample.make(type), 300);
      // BF16: a result that lies between two numbers may be rounded to either.
      const double bound = type == DType::F64 ? 1e-11 : type == DType::F32 ? 2e-5 : 8e-3;
      for (size_t i = 0; i < got.outputs.size(); ++i) {
        INFO(name_of(type) << ", T " << T << ", K " << K << ", output " << i);
        CHECK(relative_error(got.outputs[i].on({}), wanted.outputs[i]) < bound);
      }
      for (size_t i = 0; i < 5; ++i) {
        INFO(name_of(type) << ", T " << T << ", K " << K << ", gradient " << i);
        CHECK(relative_error(got.gradients[i].on({}), wanted.gradients[i]) < bound);
      }
    }
  }
}

TEST_CASE("a cell refuses inputs that do not fit, by its name") {
  const Var k = f32({2, 3, 2, 4}), v = f32({2, 3, 2, 5}), log_a = f32({2, 3, 2});
  const auto error = [&](const CellInputs& in, const Tensor& reset = {}, const Var& state = {}) {
    return error_of([&] { run_cell<SmoothMaximum>(in, reset, state); });
  };
  CHECK(error({{k}, {v}, {log_a}}) == "[smooth_maximum] expected 2 keys, got 1");
  CHECK(error({{k, v}, {v}, {log_a}}).find("[smooth_maximum] expected keys F32") == 0);
  CHECK(error({{k, k}, {v}, {f32({2, 3})}}).find("[smooth_maximum] expected scalars") == 0);
  CHECK(error({{k, k}, {v}, {log_a}}, i32({2, 4})).find("[smooth_maximum] expected reset") == 0);
  CHECK(error({{k, k}, {v}, {log_a}}, {}, v).find("[smooth_maximum] expected state") == 0);
}

}  // namespace regla::test
