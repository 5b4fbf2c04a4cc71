// Ops in BF16: every sample against F32 on the same rounded inputs, and the types that come out.

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
