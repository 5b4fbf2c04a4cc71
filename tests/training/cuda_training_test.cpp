// Training on a GPU beside the CPU's: whole updates, captured once and run again.

#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "tests/gpu.h"
#include "tests/support.h"
#include "tests/training/saved_training.h"

namespace regla::test {
namespace {

/// Updates enough to go over the border of an epoch.
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

Outcome trained(const TrainingConfig& config, Device device, int updates) {
  const Model model = make_model(config, byte_tokenizer(), device);
  // 4 updates per epoch
  const TokenStream text = small_text(config.batch_size * (4 * config.model.sequence_length + 3));
  Trainer trainer(model.config, *model.decoder, text, kEnd);
  for (int i = 0; i < updates; ++i) trainer.step();
  Outcome outcome = {.steps = trainer.finish(), .weights = {}, .state = {}};
  for (const Parameter* parameter : model.decoder->parameters()) {
    CHECK(parameter->value.device() == device);
    outcome.weights.push_back(parameter->value.on(Device{}));
  }
  DecoderState carried = trainer.carried_state();
  carried.for_each(
      [&](const std::string&, Tensor& tensor) { outcome.state.push_back(tensor.on(Device{})); });
  REQUIRE(outcome.steps.size() == static_cast<size_t>(updates));
  return outcome;
}

Outcome trained(Precision precision, Device device) {
  return trained(config_in(precision), device, kUpdates);
}

/// The largest relative difference of two trainings' losses.
double loss_error(const Outcome& a, const Outcome& b) {
  double largest = 0;
  REQUIRE(a.steps.size() == b.steps.size());
  for (size_t i = 0; i < a.steps.size(); ++i) {
    const double error = std::abs(a.steps[i].loss / b.steps[i].loss - 1);
    largest = std::isfinite(error) ? std::max(largest, error) : INFINITY;
  }
  return largest;
}

/// The root of the mean square of their differences.
double loss_distance(const Outcome& a, const Outcome& b) {
  double sum = 0;
  REQUIRE(a.steps.size() == b.steps.size());
  for (size_t i = 0; i < a.steps.size(); ++i) {
    const double difference = a.steps[i].loss - b.steps[i].loss;
    sum += difference * difference;
  }
  return std::sqrt(sum / static_cast<double>(a.steps.size()));
}

/// Every mixer by its name, and settings that other kernels serve; as a carried state asks for,
/// softmax attention has a window.
std::vector<std::string> trained_mixers() {
  std::vector<std::string> all;
  for (const std::string_view name : names_of(MixerType{})) {
    const std::string window = name == "softmax" ? R"(, "window": 24)" : "";
    all.push_back(R"({"type": ")" + std::string(name) + R"(", "rope": "full", "rope_base": 100)" +
                  window + "}");
  }
  for (const char* more :
       {R"("gate_axis": "key")", R"("gate_axis": "both")", R"("write_gate": true)",
        R"("gate_projection": "per_head", "output_gate": "swish")", R"("feature_map": "dpfp")",
        R"("type": "gla", "feature_map": "elu1")",
        R"("type": "fast_decay", "feature_map": "elu1")"}) {
    all.push_back("{" + std::string(more) + "}");
  }
  all.push_back(R"([{"type": "softmax", "window": 11}, "regla"])");
  return all;
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

TEST_CASE("updates that a GPU does, records and repeats stay within their memory",
          "[cuda][sanitizer]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  TrainingConfig config = full_config(
      R"(["regla", {"type": "softmax", "window": 11}, "delta_net"])", Precision::Bf16, 3);
  config.model.hidden = 32;
  config.model.sequence_length = 40;
  config.epsilon = 1e-3;
  constexpr int kFew = 3;  // called, recorded, and repeated
  CHECK(loss_error(trained(config, *device, kFew), trained(config, {}, kFew)) < 2e-2);
}

TEST_CASE("50 updates of every mixer on a GPU follow the CPU's losses", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const std::string& mixer : trained_mixers()) {
    INFO(mixer);
    const auto run = [&](Precision precision, Device where, uint64_t seed) {
      TrainingConfig config = full_config(mixer, precision);
      config.model.hidden = 32;  // heads of 16, which tensor cores take
      config.model.sequence_length = 40;
      config.epsilon = 1e-3;
      config.seed = seed;
      return trained(config, where, 50);
    };
    const Outcome exact = run(Precision::Fp32, {}, 1), other = run(Precision::Fp32, {}, 2);
    CHECK(exact.steps.back().loss < 0.9 * exact.steps.front().loss);
    // Where features change their sign under a norm, o jumps with the sign of a score: then the CPU
    // says how far rounding alone leads.
    const bool jumps = mixer.find("gla\", \"rope") != mixer.npos ||
                       mixer.find("fast_decay\", \"rope") != mixer.npos;
    const double own = jumps ? loss_error(exact, run(Precision::F64, {}, 1)) : 0;
    CHECK(loss_error(run(Precision::Fp32, *device, 1), exact) < std::max(1e-4, 2 * own));
    const double spread = loss_distance(other, exact);
    const Outcome rounded = run(Precision::Bf16, *device, 1);
    CHECK(loss_distance(rounded, exact) < spread);
    CHECK(loss_distance(rounded, run(Precision::Bf16, {}, 1)) < spread);
  }
}

TEST_CASE("a training goes on where it was saved, on a GPU or on the CPU", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const char* mixer : {R"("regla")", R"([{"type": "softmax", "window": 6}, "delta_net"])"}) {
    for (const Precision precision : {Precision::Fp32, Precision::Bf16}) {
      for (const Device first : {Device{}, *device}) {
        INFO(mixer << ", " << name_of(precision) << ", begun on " << first.text());
        TrainingConfig config = full_config(mixer, precision);
        config.epsilon = 1e-3;
        Training training(config, first);
        training.steps(5);
        const TemporaryFolder folder;
        training.save(folder);
        const double wanted = training.steps(5);
        for (const Device then : {Device{}, *device}) {
          INFO("goes on on " << then.text());
          Training again(folder, {}, then);
          const double loss = again.steps(5);
          if (then == first) {
            CHECK(loss == wanted);
            for (size_t i = 0; i < training.model.decoder->parameters().size(); ++i) {
              const Parameter &a = *training.model.decoder->parameters()[i],
                              &b = *again.model.decoder->parameters()[i];
              INFO(a.name);
              CHECK(b.value.device() == then);
              CHECK(same_bits(a.value, b.value));
              CHECK(same_bits(a.copy, b.copy));
            }
          } else {
            CHECK(std::abs(loss / wanted - 1) < (precision == Precision::Fp32 ? 1e-4 : 5e-3));
          }
          // What it saves is what the other device reads.
          const TemporaryFolder last;
          again.save(last);
          CHECK(Training(last, {}, first).trainer.steps_done() == 10);
        }
      }
    }
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
