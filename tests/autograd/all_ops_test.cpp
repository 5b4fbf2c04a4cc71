#include "tests/all_ops.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>

#include "tests/catch.h"
#include "tests/wrong_calls.h"

namespace regla::test {
namespace {

/// sum over outputs of cotangent * output
double weighted_sum(const OpSample& sample, const Tensors& values, const Tensors& d) {
  const Vars out = sample.apply(Vars(values.begin(), values.end()));
  double sum = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    // An infinity that stays where it is has no slope.
    if (!out[i].defined()) continue;
    const std::vector<double> y = out[i].value.values(), weight = d[i].values();
    for (size_t j = 0; j < y.size(); ++j) sum += std::isfinite(y[j]) ? y[j] * weight[j] : 0;
  }
  return sum;
}

std::set<std::string> declared_ops() {
  std::ifstream file(std::string(REGLA_SOURCE_DIR) + "/autograd/ops.h");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  const std::regex declaration("\n(?:Vars?|Tensors?|SafeExp|SumAndNorm|Recurrence) ([a-z_]+)\\(");
  std::set<std::string> names;
  for (std::sregex_iterator match(text.begin(), text.end(), declaration), end; match != end;
       ++match) {
    names.insert((*match)[1]);
  }
  return names;
}

}  // namespace

TEST_CASE("every op has a sample and a call that it refuses") {
  const std::set<std::string> names = declared_ops();
  CHECK(names.size() >= 20);
  std::set<std::string> sampled, refusing;
  for (const OpSample& sample : all_ops()) sampled.insert(sample.op);
  for (const WrongCall& wrong : wrong_calls()) refusing.insert(wrong.op);
  CHECK(sampled == names);
  CHECK(refusing == names);
}

TEST_CASE("gradients are those of finite differences in double") {
  for (const OpSample& sample : all_ops()) {
    Tensors values = sample.make(DType::F64);
    const Result result = run(sample, values, 100);
    Tensors d;
    {
      const Vars out(result.outputs.begin(), result.outputs.end());
      d = cotangents(out, 100);
    }
    for (size_t n = 0; n < values.size(); ++n) {
      if (!sample.inputs[n].differentiable) continue;
      INFO(sample.name() << ", input " << n);
      std::vector<double> numeric;
      for (int64_t i = 0; i < values[n].numel(); ++i) {
        numeric.push_back(slope(values[n], i, [&] { return weighted_sum(sample, values, d); }));
      }
      REQUIRE(result.gradients[n].defined());
      CHECK(relative_error(result.gradients[n].values(), numeric) < 1e-7);
    }
  }
}

TEST_CASE("float agrees with double") {
  for (const auto& list : {all_ops(), large_ops()}) {
    for (const OpSample& sample : list) {
      const Result single = run(sample, sample.make(DType::F32), 200);
      const Result exact = run(sample, sample.make(DType::F64), 200);
      for (size_t i = 0; i < exact.outputs.size(); ++i) {
        INFO(sample.name() << ", output " << i);
        CHECK(relative_error(single.outputs[i], exact.outputs[i]) < 1e-4);
      }
      const double largest = largest_of(exact.gradients);
      for (size_t i = 0; i < exact.gradients.size(); ++i) {
        INFO(sample.name() << ", gradient " << i);
        if (largest_of(exact.gradients[i]) == 0) {  // only the others can say what is small
          CHECK(largest_of(single.gradients[i]) <= 1e-6 * largest);
          continue;
        }
        CHECK(relative_error(single.gradients[i], exact.gradients[i]) < 1e-4);
      }
    }
  }
}

TEST_CASE("the number of threads changes no bit") {
  for (const auto& list : {all_ops(), large_ops()}) {
    for (const OpSample& sample : list) {
      for (DType dtype : {DType::F32, DType::F64}) {
        const Tensors values = sample.make(dtype);
        Result one;
        {
          const Threads guard(1);
          one = run(sample, values, 300);
        }
        for (int count : {2, 3}) {
          const Threads guard(count);
          const Result many = run(sample, values, 300);
          INFO(sample.name() << ", " << name_of(dtype) << ", " << count << " threads");
          const auto same = [](const Tensors& a, const Tensors& b) {
            return std::equal(a.begin(), a.end(), b.begin(), b.end(), same_bits);
          };
          CHECK(same(many.outputs, one.outputs));
          CHECK(same(many.gradients, one.gradients));
        }
      }
    }
  }
}

TEST_CASE("a gradient does not depend on which others are wanted") {
  for (const OpSample& sample : all_ops()) {
    const Tensors values = sample.make(DType::F64);
    const Result all = run(sample, values, 400);
    for (size_t i = 0; i < values.size(); ++i) {
      if (!sample.inputs[i].differentiable) continue;
      INFO(sample.name() << ", input " << i);
      CHECK(relative_error(run(sample, values, 400, {i}).gradients[i], all.gradients[i]) < 1e-14);
    }
  }
}

TEST_CASE("gradients add up where a value is used twice by the same op") {
  for (const OpSample& sample : all_ops()) {
    const Tensors values = sample.make(DType::F64);
    const Result first = run(sample, values, 500), second = run(sample, values, 600);
    Tape tape;
    const Vars in = leaves(tape, sample, values);
    Vars out = sample.apply(in);
    const Vars again = sample.apply(in);
    Tensors d = cotangents(out, 500);
    const Tensors more = cotangents(again, 600);
    out.insert(out.end(), again.begin(), again.end());
    d.insert(d.end(), more.begin(), more.end());
    tape.backward(out, d);
    for (size_t i = 0; i < in.size(); ++i) {
      if (!sample.inputs[i].differentiable) continue;
      INFO(sample.name() << ", input " << i);
      const NoGrad guard;
      const Tensor sum = add(first.gradients[i], second.gradients[i]).value;
      CHECK(relative_error(tape.gradient(in[i]), sum) < 1e-13);
    }
  }
}

TEST_CASE("gradients add up where one value is two inputs") {
  int pairs = 0;
  for (const OpSample& sample : all_ops()) {
    for (size_t i = 0; i < sample.inputs.size(); ++i) {
      for (size_t j = i + 1; j < sample.inputs.size(); ++j) {
        const Input &a = sample.inputs[i], &b = sample.inputs[j];
        if (a.shape != b.shape || !a.differentiable || !b.differentiable) continue;
        Tensors values = sample.make(DType::F64);
        values[i] = values[j];
        const Result apart = run(sample, values, 700);
        Tape tape;
        Vars in = leaves(tape, sample, values);
        in[i] = in[j];
        const Vars out = sample.apply(in);
        tape.backward(out, cotangents(out, 700));
        INFO(sample.name() << ", inputs " << i << " and " << j);
        const NoGrad guard;
        const Tensor sum = add(apart.gradients[i], apart.gradients[j]).value;
        CHECK(relative_error(tape.gradient(in[j]), sum) < 1e-13);
        ++pairs;
      }
    }
  }
  CHECK(pairs > 30);
}

TEST_CASE("a wrong call is one clear error") {
  for (const WrongCall& wrong : wrong_calls()) {
    INFO(wrong.op << ", " << wrong.flags);
    const std::string message = error_of(wrong.call);
    CHECK(message.rfind("[" + wrong.op + "]", 0) == 0);
    CHECK(message.find('\n') == std::string::npos);
  }
}

}  // namespace regla::test
