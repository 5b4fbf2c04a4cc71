#include "autograd/recompute.h"

#include <limits>

#include "autograd/ops.h"
#include "tests/autograd/support.h"
#include "tests/matchers.h"
#include "tests/support.h"

namespace regla::test {
namespace {

Tensor input() { return normal_tensor({40, 8}, DType::F32, 1); }

Parameter weight(uint64_t seed) {
  return {.name = "w", .value = normal_tensor({8, 8}, DType::F32, seed), .gradient = {}};
}

/// Two outputs of two inputs and a parameter that is used twice.
VarFunction two_layers(Parameter& w) {
  return [&w](const Vars& in) {
    const Var y = gelu(linear(in[0], use(w), {}), Gelu::Erf);
    const Var z = in[1].defined() ? add(y, in[1]) : y;
    return Vars{linear(z, use(w), {}), scale(z, 2)};
  };
}

struct Run {
  Tensors values, gradients;
};

/// Value and gradients of a chain of two calls, with the parameter used between them too.
Run run(bool again, bool with_second, int64_t passes = 1) {
  Parameter w = weight(2);
  const VarFunction f = two_layers(w);
  const auto call = [&](const Vars& in) { return again ? recompute(f, in) : f(in); };
  Run result;
  for (int64_t pass = 0; pass < passes; ++pass) {
    Tape tape;
    const Var x = tape.leaf(input());
    const Var second = with_second ? tape.leaf(normal_tensor({40, 8}, DType::F32, 3)) : Var{};
    const Vars first = call({x, second});
    const Vars last = call({linear(first[0], use(w), {}), first[1]});
    const Tensor seed = normal_tensor({40, 8}, DType::F32, 4);
    tape.backward(Vars{last[0], last[1]}, Tensors{seed, seed});
    result.values = {last[0].value, last[1].value};
    result.gradients = {tape.gradient(x), w.gradient.clone()};
    if (with_second) result.gradients.push_back(tape.gradient(second));
  }
  return result;
}

}  // namespace

TEST_CASE("what runs again in backward has the same values and gradients, bit by bit") {
  for (bool with_second : {false, true}) {
    for (int64_t passes : {1, 2}) {
      const Run kept = run(false, with_second, passes), again = run(true, with_second, passes);
      for (size_t i = 0; i < 2; ++i) CHECK(same_bits(kept.values[i], again.values[i]));
      REQUIRE(kept.gradients.size() == again.gradients.size());
      for (size_t i = 0; i < kept.gradients.size(); ++i) {
        CHECK(kept.gradients[i].defined());
        CHECK(same_bits(kept.gradients[i], again.gradients[i]));
      }
    }
  }
}

TEST_CASE("a parameter gets its gradient where no input wants one") {
  Parameter w = weight(2), same = weight(2);
  for (Parameter* parameter : {&w, &same}) {
    const VarFunction f = two_layers(*parameter);
    Tape tape;
    const Vars in = {input(), Var{}};
    const Vars out = parameter == &w ? recompute(f, in) : f(in);
    tape.backward(Vars{out[1]}, Tensors{normal_tensor({40, 8}, DType::F32, 4)});
  }
  CHECK(w.gradient.defined());
  CHECK(same_bits(w.gradient, same.gradient));
}

TEST_CASE("one value as both arguments, and constants as outputs") {
  Tape tape;
  const Var x = tape.leaf(input());
  const Tensor ids = Tensor::of({2}, std::vector<int32_t>{1, 2});
  const Vars out = recompute(
      [&](const Vars& in) {
        return Vars{add(in[0], in[1]), ids, Var{}};
      },
      {x, x});
  CHECK(out[1].value.values() == ids.values());
  CHECK_FALSE(out[2].defined());
  tape.backward(Vars{out[0]}, Tensors{Tensor::full({40, 8}, 1, DType::F32)});
  for (double d : tape.gradient(x).values()) REQUIRE(d == 2);
}

TEST_CASE("without a tape the function just runs, and what is not reached does not run again") {
  int runs = 0;
  const VarFunction f = [&](const Vars& in) {
    ++runs;
    return Vars{scale(in[0], 3)};
  };
  CHECK(recompute(f, {input()})[0].index == -1);
  CHECK(runs == 1);
  Tape tape;
  const Var x = tape.leaf(input());
  recompute(f, {x});
  CHECK(runs == 2);
  tape.backward(Vars{x}, Tensors{input()});
  CHECK(runs == 2);
}

TEST_CASE("between forward and backward only the arguments are kept") {
  constexpr int64_t kBytes = 1000 * 1000 * 4;
  const Tensor start = Tensor::zeros({1000, 1000}, DType::F32);
  Tape tape;
  const int64_t before = bytes_in_use();
  Var x = tape.leaf(start);
  for (int block = 0; block < 5; ++block) {
    x = recompute(
        [](const Vars& in) {
          Var y = in[0];
          for (int i = 0; i < 6; ++i) y = sigmoid(y);  // keeps its input
          return Vars{y};
        },
        {x})[0];
  }
  CHECK(bytes_in_use() < before + 6 * kBytes);
  const Tensor seed = Tensor::full({1000, 1000}, 1, DType::F32);
  const int64_t held = bytes_in_use();
  tape.backward(Vars{x}, Tensors{seed});
  // The last value, the gradient, and nothing of the tapes within.
  CHECK(bytes_in_use() <= held - 3 * kBytes);
  CHECK(Tape::current() == &tape);
}

TEST_CASE("a value of the outer tape cannot slip into the function") {
  Tape tape;
  const Var x = tape.leaf(input()), other = scale(x, 2);
  const Vars out = recompute([&](const Vars& in) { return Vars{add(in[0], other)}; }, {x});
  CHECK_THROWS_WITH(tape.backward(out, Tensors{input()}), Contains("another tape"));
}

TEST_CASE("recompute inside recompute") {
  Parameter w = weight(2), same = weight(2);
  Tensors d_x;
  for (Parameter* parameter : {&w, &same}) {
    const VarFunction inner = two_layers(*parameter);
    const bool again = parameter == &w;
    const VarFunction outer = [&](const Vars& in) {
      const Vars once = again ? recompute(inner, in) : inner(in);
      return again ? recompute(inner, once) : inner(once);
    };
    Tape tape;
    const Var x = tape.leaf(input());
    const Vars out = again ? recompute(outer, {x, Var{}}) : outer({x, Var{}});
    tape.backward(Vars{out[0]}, Tensors{normal_tensor({40, 8}, DType::F32, 4)});
    d_x.push_back(tape.gradient(x));
  }
  CHECK(same_bits(d_x[0], d_x[1]));
  CHECK(same_bits(w.gradient, same.gradient));
}

TEST_CASE("check_finite looks into the function, forward and backward") {
  const auto attempt = [](double factor, double seed) {
    Tape tape;
    tape.check_finite(true);
    const Var x = tape.leaf(input());
    const Vars out = recompute(
        [factor](const Vars& in) {
          const Scope scope("layers.3.mlp");
          return Vars{scale(scale(in[0], factor), 1)};
        },
        {x});
    tape.backward(out, Tensors{Tensor::full({40, 8}, seed, DType::F32)});
  };
  CHECK_THROWS_WITH(attempt(std::numeric_limits<double>::infinity(), 1),
                    Contains("output of `scale` in layers.3.mlp"));
  CHECK_THROWS_WITH(attempt(1e20, 1e30), Contains("input gradient of `scale` in layers.3.mlp"));
}

}  // namespace regla::test
