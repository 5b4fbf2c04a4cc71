// Every op on a GPU, beside the CPU's.

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "tests/all_ops.h"
#include "tests/autograd/rounded_ops.h"
#include "tests/cell_device.h"
#include "tests/gpu.h"
#include "tests/gpu_ops.h"

namespace regla::test {
namespace {

/// The last place of the largest number.
constexpr double kLastPlace = 0x1p-23;

/// The largest error of each output and gradient over a few draws of what comes from behind.
struct Errors {
  std::vector<double> outputs, gradients;

  void add(const Result& got, const Result& exact) {
    const auto add_all = [](const Tensors& a, const Tensors& b, double terms,
                            std::vector<double>& errors) {
      REQUIRE(a.size() == b.size());
      errors.resize(a.size());
      for (size_t i = 0; i < a.size(); ++i) {
        REQUIRE(a[i].defined() == b[i].defined());
        if (!a[i].defined()) continue;
        const bool is_zero = is_left_over(largest_of(b[i]), terms, DType::F32);
        const double error = relative_error(a[i].values(), b[i].values(), is_zero ? terms : 0);
        errors[i] = std::max(errors[i], error);
      }
    };
    add_all(got.outputs, exact.outputs, 0, outputs);
    add_all(got.gradients, exact.gradients, largest_of(exact.gradients), gradients);
  }
};

/// Whether there are inputs of one type whatever the sample is run in.
bool reads_constants(const OpSample& sample) {
  return std::any_of(sample.inputs.begin(), sample.inputs.end(),
                     [](const Input& in) { return in.is_float() && in.type.has_value(); });
}

/// Whether the CPU has two forms of it: in chunks, and token by token, by the cell it decodes with.
bool is_recurrence(const OpSample& sample) {
  return sample.op == "linear_attention" || sample.op == "delta_rule";
}

/// In F32 at most twice the CPU's own error, of the worse of its forms, or two last places; in F64
/// the CPU's numbers.
void check_exact(const OpSample& sample, Device device) {
  INFO(sample.name());
  constexpr double kAllowed = 2 * kLastPlace;
  Errors here, there;
  for (uint64_t seed = 800; seed < 1100; seed += 100) {
    const Result exact = run(sample, sample.make(DType::F64), seed);
    here.add(run(sample, sample.make(DType::F32), seed), exact);
    if (is_recurrence(sample)) {
      here.add(run(sample, sample.make(DType::F32, cell_device()), seed), exact);
    }
    there.add(run(sample, sample.make(DType::F32, device), seed), exact);
    if (reads_constants(sample)) continue;  // and computes in their type
    Errors wide;
    wide.add(run(sample, sample.make(DType::F64, device), seed), exact);
    for (const double error : wide.outputs) CHECK(error < 1e-11);
    for (const double error : wide.gradients) CHECK(error < 1e-11);
  }
  for (size_t i = 0; i < here.outputs.size(); ++i) {
    INFO("output " << i);
    CHECK(there.outputs[i] <= std::max(2 * here.outputs[i], kAllowed));
  }
  for (size_t i = 0; i < here.gradients.size(); ++i) {
    INFO("gradient " << i);
    CHECK(there.gradients[i] <= std::max(2 * here.gradients[i], kAllowed));
  }
}

/// In BF16, beside the CPU in F32 and in BF16.
void check_bfloat16(const OpSample& sample, Device device) {
  const RoundedRun there = run_rounded(sample, device);
  const auto bound_of = [&](size_t input) {
    return is_decay(sample, input) ? 2e-2 : 5e-3;  // those of gates
  };
  check_rounded_run(sample, there, run_widened(sample, there), bound_of);
  INFO("beside the CPU in BF16");
  check_rounded_run(sample, there, run_rounded(sample).result, bound_of);
}

}  // namespace

// Apart, so that they are looked at side by side.
TEST_CASE("kernels of every op in F32 stay within their memory on a GPU", "[cuda][sanitizer]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const OpSample& sample : all_ops()) {
    INFO(sample.name());
    const Result here = run(sample, sample.make(DType::F32), 800);
    const Result there = run(sample, sample.make(DType::F32, *device), 800);
    for (size_t i = 0; i < here.outputs.size(); ++i) {
      CHECK(relative_error(there.outputs[i], here.outputs[i]) < 1e-4);
    }
  }
}

TEST_CASE("kernels of every op in BF16 stay within their memory on a GPU", "[cuda][sanitizer]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const OpSample& sample : all_ops()) check_bfloat16(sample, *device);
}

TEST_CASE("kernels on tensor cores stay within their memory on a GPU", "[cuda][sanitizer]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const OpSample& sample : small_gpu_ops()) check_bfloat16(sample, *device);
}

TEST_CASE("every op computes on a GPU what the CPU does", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const auto& list : {all_ops(), large_ops()}) {
    for (const OpSample& sample : list) check_exact(sample, *device);
  }
}

TEST_CASE("every op computes on a GPU in BF16 what the CPU does", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const auto& list : {all_ops(), large_ops()}) {
    for (const OpSample& sample : list) check_bfloat16(sample, *device);
  }
}

TEST_CASE("recurrences and attention of every size compute on a GPU what the CPU does", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const OpSample& sample : gpu_ops()) check_exact(sample, *device);
}

TEST_CASE("recurrences and attention of every size compute on a GPU in BF16 what the CPU does",
          "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const OpSample& sample : gpu_ops()) check_bfloat16(sample, *device);
}

/// Gradients of x and of the weights and biases of layers that read it, of two backward passes: of
/// what a mixer begins with, from ops that write them side by side, but for the last.
Tensors gradients_of_layers(Device device, bool last_is_read, bool apart) {
  const std::vector<int64_t> outputs = {64, 24, 16, 24, 8};
  std::vector<Parameter> weights, biases;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const auto normal = [&](const Shape& shape, uint64_t seed) {
      return normal_tensor(shape, DType::F32, seed + i).on(device);
    };
    weights.push_back({.name = "weight", .value = normal({outputs[i], 48}, 10)});
    weights.back().keep_copy(DType::BF16);
    biases.push_back({.name = "bias", .value = normal({outputs[i]}, 20)});
  }
  const auto narrow = [&](const Shape& shape, uint64_t seed) {
    return converted(normal_tensor(shape, DType::F32, seed), DType::BF16).on(device);
  };
  Tensors gradients;
  for (uint64_t pass = 0; pass < 2; ++pass) {
    Tape tape;
    tape.check_finite(apart);  // what is checked lies apart
    const Var x = tape.leaf(narrow({2, 69, 48}, pass));
    const auto layer = [&](size_t i, int64_t heads = 0) {
      return linear(x, use(weights[i]), use(biases[i]), {}, heads);
    };
    Vars out = {safe_exp(layer(0, 2), {}, {}, Maximum::Running, 1).features};
    const Var z_r = layer(1), last = layer(2), z_g = layer(3);
    out.push_back(refined_gate(z_g, z_r));
    out.push_back(gelu(layer(4), Gelu::Erf));
    if (last_is_read) out.push_back(last);
    Tensors seeds;
    for (const Var& var : out) seeds.push_back(narrow(var.shape(), 30 + seeds.size()));
    tape.backward(out, seeds);
    gradients.push_back(tape.gradient(x));
  }
  for (const std::vector<Parameter>& parameters : {weights, biases}) {
    for (const Parameter& parameter : parameters) {
      gradients.push_back(parameter.gradient_empty ? Tensor{} : parameter.gradient);
    }
  }
  return gradients;
}

TEST_CASE("layers of one x on a GPU have the same gradients side by side and apart", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const bool last_is_read : {true, false}) {
    const Tensors beside = gradients_of_layers(*device, last_is_read, false);
    const Tensors apart = gradients_of_layers(*device, last_is_read, true);
    const Tensors on_cpu = gradients_of_layers({}, last_is_read, false);
    for (size_t i = 0; i < apart.size(); ++i) {
      INFO("gradient " << i << (last_is_read ? "" : ", one layer is not read"));
      REQUIRE(beside[i].defined() == apart[i].defined());
      if (!apart[i].defined()) continue;
      // Of x: a sum over the layers in BF16, rounded once or, where it is checked, more often.
      CHECK(relative_error(beside[i], apart[i]) <= (i < 2 ? 1e-2 : 1e-6));
      CHECK(rms_difference(beside[i].on({}), on_cpu[i]) <= 1e-2 * rms_of(on_cpu[i]));
    }
  }
}

}  // namespace regla::test
