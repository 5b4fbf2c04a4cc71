// Whole mixers on a GPU: the contract, and how close they are to the CPU's.

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tests/cell_device.h"
#include "tests/gpu.h"
#include "tests/layers/mixer_cases.h"
#include "tests/layers/mixer_precision.h"

namespace regla::test {
namespace {

Cases joined_cases(const std::vector<Cases>& parts) {
  Cases all;
  for (const Cases& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

ContractSizes on(Device device, ContractSizes sizes) {
  sizes.device = device;
  return sizes;
}

/// Half of the last place: nobody is asked to be closer.
constexpr double kOneRounding = 0x1p-24;

/// Of each result the root of the mean square of the error over that of the exact numbers, or of
/// the largest gradient's where a gradient has vanished; the geometric mean of a few draws of the
/// tokens. A norm makes of the rounding of one o that is nearly nothing as large an error as it
/// likes, here or there: draws count alike.
class Errors {
 public:
  void add(const Named& got, const Named& exact) {
    double gradients = 0;
    for (const auto& [what, value] : exact) {
      if (what.starts_with("d ")) gradients = std::max(gradients, rms_of(value));
    }
    ++draws_;
    for (const auto& [what, value] : exact) {
      INFO(what);
      REQUIRE(got.contains(what));
      REQUIRE(got.at(what).defined() == value.defined());
      if (!value.defined()) continue;
      REQUIRE(got.at(what).shape() == value.shape());
      const bool is_zero =
          what.starts_with("d ") && is_left_over(rms_of(value), gradients, DType::F32);
      const double error = rms_difference(got.at(what), value);
      const double size = is_zero ? gradients : rms_of(value);
      const double ratio = size == 0 ? error : error / size;
      logs_[what] += std::log(std::max(ratio, kOneRounding));
    }
  }

  double operator[](const std::string& what) const {
    return std::exp(logs_.at(what) / static_cast<double>(draws_));
  }
  const std::map<std::string, double>& names() const { return logs_; }

 private:
  std::map<std::string, double> logs_;
  int draws_ = 0;
};

constexpr uint64_t kDraws = 3;

/// The query of a lone token only scales its value, which a norm takes out again: nothing in F32
/// resolves what is left.
MixerConfig without_norm_of_one(MixerConfig config, const ContractSizes& sizes) {
  if (sizes.T == 1) config.norm = MixerNorm::None;
  return config;
}

void check_single(const PrecisionCase& c, Device device) {
  Errors chunks, steps, cells, there;
  for (uint64_t draw = 0; draw < kDraws; ++draw) {
    PrecisionCase cpu = c, gpu = c;
    cpu.draw = gpu.draw = draw;
    gpu.sizes.device = device;
    const Named exact = results(cpu, DType::F64, DType::F32);
    chunks.add(results(cpu, DType::F32, DType::F32), exact);
    cpu.chunk = 1;
    steps.add(results(cpu, DType::F32, DType::F32), exact);
    cpu.sizes.device = cell_device();
    cells.add(results(cpu, DType::F32, DType::F32), exact);
    there.add(results(gpu, DType::F32, DType::F32), exact);
  }
  for (const auto& [what, log] : there.names()) {
    INFO(what);
    // Of the CPU's forms: in chunks, in those of one token, and by the cells that it decodes with.
    CHECK(there[what] <= 2 * std::max({chunks[what], steps[what], cells[what]}));
  }
}

/// The results of all draws, one behind the other: of the few numbers that the gradient of a small
/// bias has, the size in one draw is an accident, as is how much of it cancels.
Named results_of_draws(PrecisionCase c, DType dtype, DType door) {
  std::map<std::string, Tensors> all;
  for (c.draw = 0; c.draw < kDraws; ++c.draw) {
    for (const auto& [what, value] : results(c, dtype, door)) {
      if (!value.defined() || value.dtype() == DType::I32) continue;
      all[what].push_back(value.on(Device{}).reshape({1, value.numel()}));
    }
  }
  Named together;
  for (const auto& [what, draws] : all) together[what] = joined(draws);
  return together;
}

void check_bfloat16(const PrecisionCase& c, Device device) {
  PrecisionCase gpu = c;
  gpu.sizes.device = device;
  const Named exact = results_of_draws(c, DType::F32, DType::F32),
              door = results_of_draws(c, DType::F32, DType::BF16);
  const Named there = results_of_draws(gpu, DType::BF16, DType::BF16);
  const Named here = results_of_draws(c, DType::BF16, DType::BF16);
  check_mixer_rounding(there, door, exact, {.beside = &here});
  INFO("beside the CPU in BF16");
  check_mixer_rounding(there, door, here, {.on_the_way = 2 * kOnTheWay, .exact = &exact});
}

/// Heads of the sizes that tensor cores take, and of others.
const std::vector<ContractSizes> kSizes = {
    {.T = 65, .hidden = 128, .heads = 2},       {.T = 200, .hidden = 96, .heads = 1},
    {.T = 63, .hidden = 64, .heads = 2},        {.B = 1, .T = 1000, .hidden = 64, .heads = 2},
    {.B = 3, .T = 1, .hidden = 64, .heads = 4}, {.T = 33, .hidden = 60, .heads = 3}};

/// One mixer for every kernel of recurrences and attention. Features are positive: where they
/// change their sign, o is next to nothing now and then, and a norm behind it makes noise of that.
Cases kernels_of_mixers() {
  Cases cases = {{"regla", small(MixerType::Regla)}, {"delta net", small(MixerType::DeltaNet)}};
  for (const MixerType type :
       {MixerType::Gla, MixerType::FastDecay, MixerType::ScalarGate, MixerType::LinearElu}) {
    cases.push_back(with("elu", type, [](MixerConfig& c) { c.feature_map = FeatureMap::Elu1; }));
  }
  return joined_cases({cases, attentions()});
}

}  // namespace

TEST_CASE("every mixer keeps the contract on a GPU", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const auto& [name, config] : joined_cases({presets(), attentions()})) {
    INFO(name);
    check_mixer_contract(config, false, {.device = *device});
  }
}

TEST_CASE("mixers in F32 on a GPU err at most twice as much as on the CPU", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const auto& [name, config] : joined_cases({all_cases(), attentions()})) {
    INFO(name);
    check_single({.config = config, .sizes = {}, .in_parts = true}, *device);
  }
}

TEST_CASE("mixers with larger heads in F32 on a GPU err at most twice as much as on the CPU",
          "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const auto& [name, config] : kernels_of_mixers()) {
    for (const ContractSizes& sizes : kSizes) {
      INFO(name << ", T " << sizes.T << ", hidden " << sizes.hidden << ", heads " << sizes.heads);
      check_single({.config = without_norm_of_one(config, sizes), .sizes = sizes}, *device);
    }
  }
}

TEST_CASE("mixers in BF16 on a GPU are as close to exact ones as the contract asks", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const auto& [name, config] : joined_cases({mixers_and_maps(), gates(), attentions()})) {
    for (const bool in_parts : {false, true}) {
      INFO(name << (in_parts ? ", in parts" : ""));
      check_bfloat16({.config = config, .sizes = kBfloat16Sizes, .in_parts = in_parts}, *device);
    }
  }
}

TEST_CASE("mixers with larger heads in BF16 on a GPU are as close as the contract asks", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const auto& [name, config] : kernels_of_mixers()) {
    for (const ContractSizes& sizes : kSizes) {
      INFO(name << ", T " << sizes.T << ", hidden " << sizes.hidden << ", heads " << sizes.heads);
      check_bfloat16(
          {.config = without_norm_of_one(config, sizes), .sizes = sizes, .in_parts = true},
          *device);
    }
  }
}

TEST_CASE("a token in BF16 is decoded on a GPU as it was trained", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const auto& [name, config] : joined_cases({mixers_and_maps(), attentions()})) {
    INFO(name);
    check_bfloat16_steps(config, on(*device, {.T = 9, .hidden = 64, .heads = 4}));
  }
}

TEST_CASE("gates that never or always forget are finite on a GPU, and the CPU's", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const double bias : {-1e4, -95.0, -50.0, 50.0, 95.0, 1e4}) {
    for (const auto& [name, base] :
         joined_cases({gates(), {{"delta net", small(MixerType::DeltaNet)}}})) {
      MixerConfig config = base;
      config.gate_bias = bias;
      config.refine_bias = -bias;
      INFO(name << ", bias " << bias);
      const PrecisionCase cpu = {.config = config, .sizes = kBfloat16Sizes};
      PrecisionCase gpu = cpu;
      gpu.sizes.device = *device;
      const Named exact = results(cpu, DType::F32, DType::F32);
      const Named single = results(gpu, DType::F32, DType::F32);
      const Named rounded = results(gpu, DType::BF16, DType::BF16);
      for (const auto& result : {single, rounded}) {
        for (const auto& [what, value] : result) {
          INFO(what);
          CHECK((!value.defined() || all_finite(value)));
        }
      }
      for (const char* what : {"y", "end S"}) {
        INFO(what);
        const Tensor &a = single.at(what), &b = exact.at(what);
        CHECK(relative_error(a.values(), b.values(), 1e-30) < 1e-4);  // else no normal numbers
      }
      const auto values = [](const Named& all) {
        return Named{{"y", all.at("y")}, {"end S", all.at("end S")}};
      };
      check_mixer_rounding(values(rounded), results(cpu, DType::F32, DType::BF16), values(exact));
    }
  }
}

}  // namespace regla::test
