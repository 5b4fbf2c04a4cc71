#include "autograd/tape.h"

#include <chrono>
#include <limits>

#include "autograd/ops.h"
#include "backends/copies.h"
#include "backends/kernels.h"
#include "tests/autograd/support.h"
#include "tests/matchers.h"
#include "tests/support.h"

namespace regla::test {
namespace {

Tensor scalar(double value) { return Tensor::full({1}, value, DType::F64); }
double first(const Tensor& x) { return x.values().at(0); }

/// Passes its input on; backward writes down how much memory is in use.
struct Probe : Op {
  std::vector<int64_t>* log;
  Tensor kept = Tensor::zeros({1000}, DType::F64);
  explicit Probe(std::vector<int64_t>* to) : log(to) {}
  const char* name() const override { return "probe"; }
  Tensors forward(const Tensors& in) override { return {in[0].clone()}; }
  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    log->push_back(bytes_in_use());
    d_in[0]->give(std::move(d_out[0]));
  }
};

/// Passes its input on; backward writes down the type that its gradient is wanted in.
struct TypeProbe : Op {
  std::vector<DType>* log;
  explicit TypeProbe(std::vector<DType>* to) : log(to) {}
  const char* name() const override { return "type_probe"; }
  Tensors forward(const Tensors& in) override { return {in[0].clone()}; }
  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    const Sink sink = d_in[0]->sink(d_out[0]);
    log->push_back(sink.tensor.dtype());
    kernels(Device{}).accumulate(d_out[0], 1, sink);
  }
};

}  // namespace

TEST_CASE("a chain of a million ops neither overflows nor is slow") {
  const auto start = std::chrono::steady_clock::now();
  {
    Tape tape;
    const Var x = tape.leaf(scalar(1));
    Var y = x;
    for (int i = 0; i < 1000000; ++i) y = scale(y, i % 2 == 0 ? 2 : 0.5);
    CHECK(tape.size() == 1000000);
    CHECK(first(y.value) == 1);
    tape.backward(y);
    CHECK(tape.size() == 0);
    CHECK(first(tape.gradient(x)) == 1);
  }
  {
    Tape tape;  // and dropped without a backward pass
    Var y = tape.leaf(scalar(1));
    for (int i = 0; i < 1000000; ++i) y = scale(y, 1);
  }
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  CHECK(taken.count() < 30);
}

TEST_CASE("each op goes as soon as its backward ran") {
  std::vector<int64_t> in_use;
  {
    Tape tape;
    tape.backward(tape.leaf(scalar(1)));  // the 1 that backward begins with stays
  }
  const int64_t before = bytes_in_use();
  {
    Tape tape;
    const Var x = tape.leaf(scalar(1));
    Var y = x;
    for (int i = 0; i < 5; ++i) y = apply(std::make_unique<Probe>(&in_use), {y})[0];
    tape.backward(y);
    CHECK(first(tape.gradient(x)) == 1);
  }
  REQUIRE(in_use.size() == 5);
  for (size_t i = 1; i < in_use.size(); ++i) CHECK(in_use[i] <= in_use[i - 1] - 8000);
  CHECK(bytes_in_use() == before);
}

TEST_CASE("who finds the gradient of a product rounds it for the products to come") {
  const Tensor x = converted(normal_tensor({3, 4}, DType::F32, 1), DType::BF16);
  const Tensor w = converted(normal_tensor({6, 4}, DType::F32, 2), DType::BF16);
  for (const size_t uses : {1, 2}) {
    std::vector<DType> types;
    Tape tape;
    const Var leaf = tape.leaf(x);
    const Var y = reshape(linear(leaf, w, {}, DType::F32), {3, 2, 3});
    Vars outputs;
    Tensors seeds;
    for (size_t i = 0; i < uses; ++i) {
      outputs.push_back(apply(std::make_unique<TypeProbe>(&types), {y})[0]);
      seeds.push_back(normal_tensor({3, 2, 3}, DType::F32, 3 + i));
    }
    CHECK(outputs[0].value.dtype() == DType::F32);
    Tensor sum = seeds[0].clone();
    if (uses == 2) kernels(Device{}).accumulate(seeds[1], 1, {sum, true});
    tape.backward(outputs, seeds);
    // Several are added up before they are rounded.
    CHECK(types == std::vector<DType>(uses, uses == 1 ? DType::BF16 : DType::F32));
    const Tensor d_x = Tensor::empty({3, 4}, DType::BF16);
    kernels(Device{}).matmul({.a = converted(sum, DType::BF16).reshape({3, 6}), .b = w, .bias = {}},
                             Sink{d_x});
    CHECK(same_bits(tape.gradient(leaf), d_x));
  }
}

TEST_CASE("without a tape, on constants and under NoGrad nothing is recorded") {
  CHECK(Tape::current() == nullptr);
  CHECK(scale(scalar(2), 3).index == -1);
  Tape tape;
  const Var x = tape.leaf(scalar(2));
  CHECK(scale(scalar(2), 3).index == -1);
  CHECK(tape.size() == 0);
  {
    const NoGrad guard;
    CHECK(Tape::current() == nullptr);
    CHECK(scale(x, 3).index == -1);
    CHECK(tape.size() == 0);
  }
  CHECK(Tape::current() == &tape);
  const Var y = scale(x, 3);
  CHECK(y.index != -1);
  CHECK(tape.size() == 1);
  tape.backward(y);
  CHECK(first(tape.gradient(x)) == 3);
  CHECK(Tape::current() == &tape);
}

TEST_CASE("the youngest tape records") {
  Tape outer;
  const Var x = outer.leaf(scalar(2));
  const Var y = scale(x, 3);
  {
    Tape inner;
    CHECK(Tape::current() == &inner);
    const Var z = inner.leaf(scalar(1));
    const Var w = scale(z, 5);
    CHECK(inner.size() == 1);
    CHECK(outer.size() == 1);
    inner.backward(w);
    CHECK(first(inner.gradient(z)) == 5);
  }
  CHECK(Tape::current() == &outer);
  outer.backward(scale(y, 7));
  CHECK(first(outer.gradient(x)) == 21);
}

TEST_CASE("a value of another tape is an error") {
  Var old;
  {
    Tape gone;
    old = scale(gone.leaf(scalar(1)), 2);
  }
  Tape outer;
  const Var x = outer.leaf(scalar(2)), y = scale(x, 2);
  CHECK_THROWS_WITH(scale(old, 2), Contains("another tape"));
  CHECK_THROWS_WITH(outer.backward(old), Contains("another tape"));
  CHECK_THROWS_AS(outer.gradient(old), Error);
  CHECK_THROWS_AS(outer.gradient(Var(scalar(1))), Error);
  Tape inner;
  const Var z = inner.leaf(scalar(3));
  CHECK_THROWS_WITH(add(z, y), Contains("`add` got a value of another tape"));
  CHECK_THROWS_WITH(add(x, z), Contains("another tape"));
}

TEST_CASE("backward starts from a scalar or from seeds that fit") {
  Tape tape;
  const Var x = tape.leaf(Tensor::zeros({2, 3}, DType::F64));
  const Var y = scale(x, 2);
  CHECK_THROWS_WITH(tape.backward(y), Contains("[backward] expected a scalar, got [2, 3]"));
  CHECK_THROWS_WITH(tape.backward({y}, {Tensor::zeros({3, 2}, DType::F64)}),
                    Contains("[backward]"));
  CHECK_THROWS_WITH(tape.backward({y}, {}), Contains("[backward]"));
  tape.backward({y, y, Var(scalar(1))}, {Tensor::full({2, 3}, 1, DType::F64),
                                         Tensor::full({2, 3}, 2, DType::F64), scalar(1)});
  CHECK(first(tape.gradient(x)) == 6);
}

TEST_CASE("seeds are not changed and leaves may be outputs") {
  Tape tape;
  const Var x = tape.leaf(scalar(1));
  const Var y = add(x, x);
  const Tensor seed = scalar(1);
  tape.backward({y, x}, {seed, seed});
  CHECK(first(tape.gradient(x)) == 3);
  CHECK(first(seed) == 1);
}

TEST_CASE("what two inputs are given is copied once one of them is added to") {
  Tape tape;
  const Var x = tape.leaf(scalar(1)), y = tape.leaf(scalar(1)), z = tape.leaf(scalar(1));
  const Tensor seed = scalar(5);
  // In reverse: the sum gives its gradient to both, then x and y are added to.
  const Var twice = scale(x, 2), thrice = scale(y, 3);
  const Var sum = add(add(x, y), z);
  tape.backward({sum, twice, thrice}, {seed, seed, seed});
  CHECK(first(tape.gradient(x)) == 15);
  CHECK(first(tape.gradient(y)) == 20);
  CHECK(first(tape.gradient(z)) == 5);
  CHECK(first(seed) == 5);
}

TEST_CASE("a seed that is moved in is taken over, and so is a gradient that is taken") {
  Tape tape;
  const Var x = tape.leaf(scalar(1));
  Tensors seeds = {scalar(4)};
  const void* memory = seeds[0].raw();
  tape.backward(Vars{x}, std::move(seeds));
  const Tensor taken = tape.take_gradient(x);
  CHECK(taken.raw() == memory);
  CHECK(taken.unique());
  CHECK_FALSE(tape.gradient(x).defined());
  CHECK_FALSE(tape.take_gradient(x).defined());
  CHECK_THROWS_AS(tape.take_gradient(Var(scalar(1))), Error);
}

TEST_CASE("what nothing reaches has no gradient, and its ops do not run backward") {
  Tape tape;
  const Var x = tape.leaf(scalar(1)), unused = tape.leaf(scalar(1));
  std::vector<int64_t> runs;
  apply(std::make_unique<Probe>(&runs), {unused});
  tape.backward(scale(x, 2));
  CHECK(runs.empty());
  CHECK_FALSE(tape.gradient(unused).defined());
  CHECK(tape.size() == 0);
}

TEST_CASE("a parameter's gradient adds up over uses and over backward passes") {
  Parameter w{.name = "w", .value = scalar(3), .gradient = {}};
  const auto pass = [&](double factor) {
    Tape tape;
    const Var twice = add(use(w), scale(use(w), 2));
    tape.backward(scale(twice, factor));
  };
  pass(1);
  CHECK_FALSE(w.gradient_empty);
  CHECK(first(w.gradient) == 3);
  pass(10);
  CHECK(first(w.gradient) == 33);
  w.clear_gradient();
  CHECK_FALSE(w.gradient.defined());
  pass(2);
  CHECK(first(w.gradient) == 6);
  CHECK(first(w.value) == 3);
  CHECK(use(w).index == -1);
}

TEST_CASE("one parameter as two inputs of one op") {
  Parameter w{.name = "w", .value = scalar(3), .gradient = {}};
  for (int pass = 1; pass <= 2; ++pass) {
    Tape tape;
    tape.backward(refined_gate(use(w), use(w)));
    Tape apart;
    const Var a = apart.leaf(scalar(3)), b = apart.leaf(scalar(3));
    apart.backward(refined_gate(a, b));
    const double both = first(apart.gradient(a)) + first(apart.gradient(b));
    CHECK(first(w.gradient) == Approx(pass * both).epsilon(1e-14));
  }
}

TEST_CASE("check_finite names the op and the scope") {
  const double infinity = std::numeric_limits<double>::infinity();
  Tape tape;
  tape.check_finite(true);
  const Var x = tape.leaf(Tensor::of({2}, std::vector<double>{1, 2}));
  const Scope outer("layers.3");
  scale(x, 1);
  {
    const Scope inner("layers.3.mixer");
    CHECK_THROWS_WITH(scale(x, infinity),
                      Contains("output of `scale` in layers.3.mixer") && Contains("[2]"));
  }
  CHECK_THROWS_WITH(scale(x, std::nan("")), Contains("output of `scale` in layers.3,"));
  Var y;
  {
    const Scope inner("layers.3.mlp");
    y = scale(x, 1e300);
  }
  y = scale(y, 1);
  const Tensor seed = Tensor::full({2}, 1e300, DType::F64);
  CHECK_THROWS_WITH(tape.backward({y}, {seed}),
                    Contains("input gradient of `scale` in layers.3.mlp"));
}

TEST_CASE("check_finite sees NaN and infinity anywhere, in all types") {
  for (DType dtype : {DType::F32, DType::F64, DType::BF16}) {
    for (double bad : {std::nan(""), std::numeric_limits<double>::infinity(),
                       -std::numeric_limits<double>::infinity()}) {
      for (size_t place : {0, 500, 1000}) {
        std::vector<double> values(1001, 1e30);
        CHECK(kernels({}).all_finite(converted(Tensor::of({1001}, values), dtype)));
        values[place] = bad;
        CHECK_FALSE(kernels({}).all_finite(converted(Tensor::of({1001}, values), dtype)));
      }
    }
  }
}

}  // namespace regla::test
