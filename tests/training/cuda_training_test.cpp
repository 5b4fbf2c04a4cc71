// Training on a GPU beside the CPU's: whole updates, captured once and run again.

#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "tests/gpu.h"
#include "tests/support.h"
#include "tests/training/support.h"
#include "text/byte_tokenizer.h"
#include "training/checkpoint.h"
#include "training/trainer.h"

namespace regla::test {
namespace {

constexpr int kUpdates = 6;

TrainingConfig config_in(Precision precision) {
  TrainingConfig config = full_config(R"("regla")", precision);
  // AdamW moves a weight by a whole rate even where its gradient is nothing but rounding: this
  // makes an update a smooth function of the gradient.
  config.epsilon = 1e-3;
  return config;
}

/// What a training leaves, on the host.
struct Outcome {
  StepResults steps;
  Tensors weights, state;
};

Outcome trained(Precision precision, Device device) {
  const Model model = make_model(config_in(precision), byte_tokenizer(), device);
  const TokenStream text = small_text(140);  // 4 updates per epoch
  Trainer trainer(model.config, *model.decoder, text, kEnd);
  for (int i = 0; i < kUpdates; ++i) trainer.step();
  Outcome outcome = {.steps = trainer.finish(), .weights = {}, .state = {}};
  for (const Parameter* parameter : model.decoder->parameters()) {
    CHECK(parameter->value.device() == device);
    outcome.weights.push_back(parameter->value.on(Device{}));
  }
  DecoderState carried = trainer.carried_state();
  carried.for_each(
      [&](const std::string&, Tensor& tensor) { outcome.state.push_back(tensor.on(Device{})); });
  REQUIRE(outcome.steps.size() == kUpdates);
  return outcome;
}

/// The largest relative difference of two trainings' losses.
double loss_error(const Outcome& a, const Outcome& b) {
  double largest = 0;
  for (size_t i = 0; i < kUpdates; ++i) {
    const double error = std::abs(a.steps[i].loss / b.steps[i].loss - 1);
    largest = std::isfinite(error) ? std::max(largest, error) : INFINITY;
  }
  return largest;
}

void check_same_bits(const Tensors& a, const Tensors& b) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) CHECK(same_bits(a[i], b[i]));
}

}  // namespace

TEST_CASE("training on a GPU goes as on the CPU, and again with the same bits", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const Precision precision : {Precision::Fp32, Precision::Bf16}) {
    INFO(name_of(precision));
    const Outcome cpu = trained(precision, Device{}), there = trained(precision, *device);
    CHECK(cpu.steps.back().loss < cpu.steps.front().loss);
    CHECK(loss_error(there, cpu) < (precision == Precision::Fp32 ? 1e-4 : 2e-2));
    if (precision == Precision::Fp32) {
      const double largest = largest_of(cpu.weights);
      for (size_t i = 0; i < cpu.weights.size(); ++i) {
        INFO("weight " << i);
        CHECK(relative_error(there.weights[i], cpu.weights[i], largest) < 1e-3);
      }
      for (size_t i = 0; i < cpu.state.size(); ++i) {
        INFO("tensor " << i << " of the state");
        CHECK(relative_error(there.state[i], cpu.state[i]) < 1e-3);
      }
    }
    const Outcome again = trained(precision, *device);
    for (size_t i = 0; i < kUpdates; ++i) {
      CHECK(again.steps[i].loss == there.steps[i].loss);
      CHECK(again.steps[i].gradient_norm == there.steps[i].gradient_norm);
    }
    check_same_bits(again.weights, there.weights);
    check_same_bits(again.state, there.state);
  }
}

TEST_CASE("training in TF32 rounds the operands of a GPU's products, and nothing else", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  const Outcome exact = trained(Precision::Fp32, *device);
  const Outcome rounded = trained(Precision::Tf32, *device);
  CHECK(loss_error(rounded, exact) < 1e-3);
  CHECK(loss_error(rounded, exact) > 0);
  check_same_bits(trained(Precision::Fp32, *device).weights, exact.weights);
  check_same_bits(trained(Precision::Tf32, Device{}).weights,
                  trained(Precision::Fp32, Device{}).weights);
}

}  // namespace regla::test
