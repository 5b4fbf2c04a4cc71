// Ops in BF16: every sample against F32 on the same rounded inputs, and the types that come out.

#include "tests/bfloat16.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "backends/kernels.h"
#include "tests/all_ops.h"
#include "tests/catch.h"

namespace regla::test {
namespace {

/// Numbers in BF16 as they are in F32.
Tensors widened(const Tensors& values) {
  Tensors wide;
  for (const Tensor& value : values) {
    wide.push_back(value.defined() ? converted(value, sum_type(value.dtype())) : Tensor{});
  }
  return wide;
}

/// The same random gradients of the outputs, rounded where they are in BF16.
Tensors seeds_like(const Vars& outputs, const Tensors& types, uint64_t seed) {
  Tensors seeds = cotangents(outputs, seed);
  for (size_t i = 0; i < seeds.size(); ++i) {
    if (!seeds[i].defined()) continue;
    seeds[i] = converted(converted(seeds[i], types[i].dtype()), outputs[i].value.dtype());
  }
  return seeds;
}

/// The types of an op's outputs, as in backends/kernels.h, one letter each.
std::string types_of(const OpSample& sample, size_t outputs) {
  static const std::map<std::string, std::string> others = {{"add", "S"},
                                                            {"add_dropout", "S"},
                                                            {"embedding", "S"},
                                                            {"cross_entropy", "DD"},
                                                            {"cross_entropy_rows", "S"},
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

}  // namespace

TEST_CASE("ops in BF16 agree with F32 on the same numbers") {
  for (const auto& list : {all_ops(), large_ops()}) {
    for (const OpSample& sample : list) {
      const Tensors values = sample.make(DType::BF16);
      Tensors types;
      const Result rounded = run(sample, values, [&](const Vars& out) {
        for (const Var& var : out) types.push_back(var.value);
        return seeds_like(out, types, 900);
      });
      const Result exact = run(sample, widened(values),
                               [&](const Vars& out) { return seeds_like(out, types, 900); });
      REQUIRE(rounded.outputs.size() == exact.outputs.size());
      for (size_t i = 0; i < exact.outputs.size(); ++i) {
        INFO(sample.name() << ", output " << i);
        if (!exact.outputs[i].defined()) continue;
        const char type = types_of(sample, exact.outputs.size()).at(i);
        CHECK(rounded.outputs[i].dtype() == type_named(type, DType::BF16));
        check_rounded(rounded.outputs[i], exact.outputs[i], 5e-3);
      }
      double largest = 0;
      for (const Tensor& gradient : exact.gradients) largest = std::max(largest, rms_of(gradient));
      for (size_t i = 0; i < exact.gradients.size(); ++i) {
        INFO(sample.name() << ", gradient " << i);
        if (!sample.inputs[i].differentiable) continue;
        REQUIRE(rounded.gradients[i].defined());
        CHECK(rounded.gradients[i].dtype() == values[i].dtype());
        if (is_left_over(rms_of(exact.gradients[i]), largest, DType::F32)) {
          CHECK(rms_of(rounded.gradients[i]) <= 5e-3 * largest);
          continue;
        }
        check_rounded(rounded.gradients[i], exact.gradients[i], 5e-3);
      }
    }
  }
}

TEST_CASE("the gradient of a value in BF16 that several ops read is rounded once") {
  const Tensor one = Tensor::full({1}, 1, DType::BF16);
  // 1 + 2^-8 + 2^-8 is a BF16; rounded after each addition it would be 1.
  const std::vector<double> factors = {1, 0x1p-8, 0x1p-8};
  for (const bool is_leaf : {true, false}) {
    Tape tape;
    const Var x = tape.leaf(one);
    const Var shared = is_leaf ? x : scale(x, 1);
    Vars out;
    for (const double factor : factors) out.push_back(scale(shared, factor));
    tape.backward(out, {one, one, one});
    CHECK(tape.gradient(x).dtype() == DType::BF16);
    CHECK(tape.gradient(x).values()[0] == 1 + 0x1p-7);
  }
}

TEST_CASE("parameters are read in BF16 by products, and have gradients in F32") {
  Parameter weight = {
      .name = "w", .value = normal_tensor({5, 7}, DType::F32, 1), .role = Role::Matrix};
  weight.keep_copy(DType::BF16);
  const Tensor x = normal_tensor({3, 7}, DType::BF16, 2);
  Tape tape;
  const Var read = use(weight);
  CHECK(read.value.dtype() == DType::BF16);
  CHECK(use_master(weight).value.dtype() == DType::F32);
  CHECK(use_master(weight).index == read.index);
  const Var y = linear(x, read, {});
  tape.backward({y}, {Tensor::full(y.shape(), 1, DType::BF16)});
  CHECK(weight.gradient.dtype() == DType::F32);
  std::vector<double> sums(7);
  const std::vector<double> rows = x.values();
  for (size_t i = 0; i < rows.size(); ++i) sums[i % 7] += rows[i];
  for (size_t i = 0; i < 35; ++i) CHECK(weight.gradient.values()[i] == Approx(sums[i % 7]));
}

}  // namespace regla::test
