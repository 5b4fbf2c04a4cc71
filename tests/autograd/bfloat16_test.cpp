// Ops in BF16: every sample against F32 on the same rounded inputs, and the types that come out.

#include <functional>
#include <vector>

#include "tests/all_ops.h"
#include "tests/autograd/rounded_ops.h"
#include "tests/catch.h"

namespace regla::test {
TEST_CASE("ops in BF16 agree with F32 on the same numbers") {
  for (const auto& list : {all_ops(), large_ops()}) {
    for (const OpSample& sample : list) {
      const RoundedRun there = run_rounded(sample);
      check_rounded_run(sample, there, run_widened(sample, there));
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

TEST_CASE("a bias is added in the type of its product's result, by every op") {
  const Tensor x = normal_tensor({3, 8}, DType::BF16, 1), w = normal_tensor({6, 8}, DType::BF16, 2);
  const Tensor bias = normal_tensor({6}, DType::F32, 3), rounded = converted(bias, DType::BF16);
  const Tensor wide = converted(rounded, DType::F32), heads = x.reshape({3, 1, 2, 4}),
               of_heads = normal_tensor({6, 4}, DType::BF16, 4);
  using Biased = std::function<Tensor(const Tensor& bias)>;
  const NoGrad guard;
  const std::vector<Biased> narrow = {
      [&](const Tensor& b) { return linear(x, w, b).value; },
      [&](const Tensor& b) { return gelu(linear(x, w, b), Gelu::Erf).value; },
      [&](const Tensor& b) { return head_linear(heads, of_heads, b).value; },
      [&](const Tensor& b) {
        return linear_step(x, {}, {{w, b, DType::BF16}}, DType::BF16)[0];
      },
      [&](const Tensor& b) {
        return linear_step(x, {}, {{w, b, DType::BF16}}, DType::BF16, Gelu::Erf)[0];
      }};
  for (size_t i = 0; i < narrow.size(); ++i) {
    INFO("op " << i);
    CHECK(same_bits(narrow[i](bias), narrow[i](wide)));
    CHECK(same_bits(narrow[i](bias), narrow[i](rounded)));
  }
  const std::vector<Biased> kept = {
      [&](const Tensor& b) { return linear(x, w, b, DType::F32).value; },
      [&](const Tensor& b) { return head_linear(heads, of_heads, b, DType::F32).value; },
      [&](const Tensor& b) {
        return linear_step(x, {}, {{w, b, DType::F32}}, DType::BF16)[0];
      }};
  for (size_t i = 0; i < kept.size(); ++i) {
    INFO("result in F32, op " << i);
    CHECK_FALSE(same_bits(kept[i](bias), kept[i](wide)));
  }
}

TEST_CASE("a bias is read in the type that is asked for") {
  Parameter bias = {.name = "b", .value = normal_tensor({5}, DType::F32, 1), .role = Role::Bias};
  CHECK(use_in(DType::F32, bias).value.shares_memory_with(bias.value));
  bias.keep_copy(DType::BF16);
  CHECK(use_in(DType::BF16, bias).value.shares_memory_with(bias.copy));
  CHECK(use_in(DType::F32, bias).value.shares_memory_with(bias.value));
  Tape tape;
  CHECK(use_in(DType::BF16, bias).index == use_in(DType::F32, bias).index);
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
