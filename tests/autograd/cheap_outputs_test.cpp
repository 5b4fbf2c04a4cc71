#include "autograd/tape.h"
#include "backends/kernels.h"
#include "tests/all_ops.h"
#include "tests/autograd/support.h"
#include "tests/catch.h"

// Outputs of cheap ops: not kept, but computed again where backward needs them.
namespace regla::test {
namespace {

/// y = 3 x, cheap; counts how often it runs.
struct Triple : Op {
  int* runs;
  Tensor x;
  explicit Triple(int* count) : runs(count) {}
  const char* name() const override { return "triple"; }
  Tensors forward(const Tensors& in) override {
    ++*runs;
    x = in[0];
    const NoGrad guard;
    return {scale(x, 3).value};
  }
  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    kernels({}).accumulate(d_out[0], 3, d_in[0]->sink(x));
  }
  Tensor* kept_input(size_t) override { return &x; }
  bool is_cheap() const override { return true; }
};

/// Passes its inputs on and keeps them; backward checks that they are what they were.
struct Keeper : Op {
  Tensors in, before;
  const char* name() const override { return "keeper"; }
  Tensors forward(const Tensors& inputs) override {
    in = inputs;
    Tensors out;
    for (const Tensor& x : in) {
      before.push_back(x ? x.clone() : x);
      out.push_back(x ? x.clone() : x);
    }
    return out;
  }
  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    for (size_t i = 0; i < in.size(); ++i) {
      CHECK(same_bits(in[i], before[i]));
      if (d_out[i]) d_in[i]->give(d_out[i]);
    }
  }
  Tensor* kept_input(size_t input) override { return &in[input]; }
};

Var triple(const Var& x, int* runs) { return regla::apply(std::make_unique<Triple>(runs), {x})[0]; }
Var keep(const Var& x) { return regla::apply(std::make_unique<Keeper>(), {x})[0]; }

}  // namespace

TEST_CASE("a cheap output is freed after forward and computed once for all that keep it") {
  constexpr int64_t kBytes = 80000;
  const Tensor start = Tensor::full({10000}, 2, DType::F64);
  int runs = 0;
  Tape tape;
  const Var x = tape.leaf(start);
  const int64_t before = bytes_in_use();
  Var sum;
  {
    const Var y = triple(x, &runs);
    sum = add(keep(y), keep(y));
  }
  CHECK(runs == 1);
  CHECK(bytes_in_use() - before == 3 * kBytes);  // the sum and what the keepers compare with
  tape.backward({sum}, {Tensor::full({10000}, 1, DType::F64)});
  CHECK(runs == 2);
  CHECK(tape.gradient(x).values()[0] == 6);
}

TEST_CASE("a cheap output of a cheap output is computed again from the first that is kept") {
  int runs = 0;
  Tape tape;
  const Var x = tape.leaf(Tensor::full({6}, 2, DType::F64));
  Var y = keep(scale(reshape(triple(triple(x, &runs), &runs), {2, 3}), 5));
  CHECK(runs == 2);
  tape.backward({y}, {Tensor::full({2, 3}, 1, DType::F64)});
  CHECK(runs == 4);
  CHECK(tape.gradient(x).values()[5] == 45);
}

TEST_CASE("what nobody keeps, or nothing reaches, is not computed again") {
  int runs = 0;
  Tape tape;
  const Var x = tape.leaf(Tensor::full({6}, 2, DType::F64));
  keep(triple(x, &runs));  // not reached
  const Var y = scale(triple(x, &runs), 5);
  tape.backward({y}, {Tensor::full({6}, 1, DType::F64)});
  CHECK(runs == 2);
  CHECK(tape.gradient(x).values()[0] == 15);
}

TEST_CASE("an op without products whose input is not at hand keeps its output") {
  Tape tape;
  const Var x = tape.leaf(Tensor::full({6}, 2, DType::F64));
  const Var y = keep(scale(add(x, x), 5));  // neither add nor scale keeps anything
  tape.backward({y}, {Tensor::full({6}, 1, DType::F64)});
  CHECK(tape.gradient(x).values()[0] == 10);
}

TEST_CASE("every op gives a later op the bits it gave before") {
  for (const OpSample& sample : all_ops()) {
    INFO(sample.name());
    Tape tape;
    const Vars in = leaves(tape, sample, sample.make(DType::F32));
    const Vars out = regla::apply(std::make_unique<Keeper>(), sample.apply(in));
    Tensors seeds;
    for (const Var& y : out) seeds.push_back(y.defined() ? Tensor::zeros_like(y.value) : Tensor{});
    tape.backward(out, seeds);
  }
}

}  // namespace regla::test
