#pragma once

#include <algorithm>
#include <map>
#include <string>

#include "backends/kernels.h"
#include "tests/bfloat16.h"
#include "tests/op_sample.h"

// Samples of ops in BF16 beside F32 on the same rounded numbers.
namespace regla::test {

/// Numbers in BF16 as they are in F32.
inline Tensors widened(const Tensors& values) {
  Tensors wide;
  for (const Tensor& value : values) {
    wide.push_back(value.defined() ? converted(value, sum_type(value.dtype())) : Tensor{});
  }
  return wide;
}

/// The same random gradients of the outputs, rounded where they are in BF16.
inline Tensors seeds_like(const Vars& outputs, const Tensors& types, uint64_t seed) {
  Tensors seeds = cotangents(outputs, seed);
  for (size_t i = 0; i < seeds.size(); ++i) {
    if (!seeds[i].defined()) continue;
    seeds[i] = converted(converted(seeds[i], types[i].dtype()), outputs[i].value.dtype());
  }
  return seeds;
}

/// The types of an op's outputs, as in backends/kernels.h, one letter each.
inline std::string types_of(const OpSample& sample, size_t outputs) {
  static const std::map<std::string, std::string> others = {{"add", "S"},
                                                            {"add_dropout", "S"},
                                                            {"embedding", "S"},
                                                            {"cross_entropy", "DD"},
                                                            {"cross_entropy_rows", "S"},
                                                            {"distillation", "D"},
                                                            {"relative_error", "D"},
                                                            {"favor_exponent", "S"},
                                                            {"safe_exp", "ASS"},
                                                            {"linear_attention", "AS"},
                                                            {"linear_attention_step", "AS"},
                                                            {"delta_rule", "AS"},
                                                            {"delta_rule_step", "AS"}};
  if (!sample.types.empty()) return sample.types;
  const auto found = others.find(sample.op);
  return found == others.end() ? std::string(outputs, 'A') : found->second;
}

/// A sample in BF16, and the types of its outputs, which those of F32's gradients follow.
struct RoundedRun {
  Result result;
  Tensors outputs;
};

inline RoundedRun run_rounded(const OpSample& sample, Device device = {}) {
  RoundedRun rounded;
  rounded.result = run(sample, sample.make(DType::BF16, device), [&](const Vars& out) {
    for (const Var& var : out) rounded.outputs.push_back(var.value);
    return seeds_like(out, rounded.outputs, 900);
  });
  return rounded;
}

/// The same numbers in F32, on the CPU.
inline Result run_widened(const OpSample& sample, const RoundedRun& rounded) {
  return run(sample, widened(sample.make(DType::BF16)),
             [&](const Vars& out) { return seeds_like(out, rounded.outputs, 900); });
}

/// Holds the run to `exact`, gradients to the bound that `bound_of` gives for the input.
inline void check_rounded_run(
    const OpSample& sample, const RoundedRun& rounded, const Result& exact,
    const std::function<double(size_t)>& bound_of = [](size_t) { return 5e-3; }) {
  const Tensors& outputs = rounded.result.outputs;
  REQUIRE(outputs.size() == exact.outputs.size());
  for (size_t i = 0; i < exact.outputs.size(); ++i) {
    INFO(sample.name() << ", output " << i);
    if (!exact.outputs[i].defined()) continue;
    const char type = types_of(sample, exact.outputs.size()).at(i);
    CHECK(outputs[i].dtype() == type_named(type, DType::BF16));
    check_rounded(outputs[i], exact.outputs[i], 5e-3);
  }
  double largest = 0;
  for (const Tensor& gradient : exact.gradients) largest = std::max(largest, rms_of(gradient));
  for (size_t i = 0; i < exact.gradients.size(); ++i) {
    INFO(sample.name() << ", gradient " << i);
    if (!sample.inputs[i].differentiable) continue;
    const Tensor& gradient = rounded.result.gradients[i];
    REQUIRE(gradient.defined());
    const Input& input = sample.inputs[i];
    const DType own = input.is_sum ? DType::F32 : DType::BF16;
    CHECK(gradient.dtype() == input.type.value_or(own));
    if (is_left_over(rms_of(exact.gradients[i]), largest, DType::F32)) {
      CHECK(rms_of(gradient) <= bound_of(i) * largest);
      continue;
    }
    check_rounded(gradient, exact.gradients[i], bound_of(i));
  }
}

}  // namespace regla::test
