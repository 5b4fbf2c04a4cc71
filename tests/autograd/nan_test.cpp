// No op turns a NaN into a number. What a NaN must reach is found without knowing the op: where two
// finite values of an element give two values of a result, the result depends on that element, and
// is NaN where the element is. (What does not change may be NaN too: 0 times NaN is.)

#include <bit>
#include <map>
#include <sstream>

#include "tests/all_ops.h"
#include "tests/catch.h"

namespace regla::test {
namespace {

/// The bits of NaNs: quiet, with the sign bit set, with nothing but the lowest bit of the payload.
constexpr int kNans = 3;
constexpr uint16_t kNan16[kNans] = {0x7fc0, 0xffc0, 0x7f81};
constexpr uint32_t kNan32[kNans] = {0x7fc00000, 0xffc00000, 0x7f800001};
constexpr uint64_t kNan64[kNans] = {0x7ff8000000000000, 0xfff8000000000000, 0x7ff0000000000001};

/// x with another element i.
template <class F>
Tensor changed(const Tensor& x, int64_t i, F&& f) {
  Tensor y = x.clone();
  for_any_type(x.dtype(), [&](auto tag) { f(y.data<decltype(tag)>()[i]); });
  return y;
}
Tensor with_nan(const Tensor& x, int64_t i, int kind) {
  return changed(x, i, [&](auto& element) {
    if constexpr (sizeof element == 2) {
      element = std::bit_cast<BFloat16>(kNan16[kind]);
    } else if constexpr (std::is_same_v<decltype(element), int32_t&>) {
      fail("an integer is never NaN");
    } else if constexpr (sizeof element == 4) {
      element = std::bit_cast<float>(kNan32[kind]);
    } else {
      element = std::bit_cast<double>(kNan64[kind]);
    }
  });
}
Tensor with_value(const Tensor& x, int64_t i, double value) {
  return changed(x, i, [&]<class T>(T& element) { element = static_cast<T>(value); });
}

/// Up to `most` places of `count`, the first and the last among them: what is left over from whole
/// vectors lies at the end.
std::vector<int64_t> places(int64_t count, int64_t most) {
  std::vector<int64_t> all;
  for (int64_t n = 0; n < std::min(count, most); ++n) {
    all.push_back(count <= most ? n : n * (count - 1) / (most - 1));
  }
  return all;
}

/// The elements of results that depend on an element of an operand: what two finite values of it
/// give differs there.
class Dependence {
 public:
  Dependence(const char* what, const Tensors& low, const Tensors& high) : what_(what) {
    for (size_t n = 0; n < low.size(); ++n) {
      places_.emplace_back();
      if (!low[n].defined()) continue;
      const std::vector<double> a = low[n].values(), b = high[n].values();
      for (size_t j = 0; j < a.size(); ++j) {
        if (a[j] != b[j]) places_[n].push_back(j);
      }
      count_ += std::ssize(places_[n]);
    }
  }

  int64_t count() const { return count_; }

  /// The first of them that is a number all the same where the operand's element is NaN, in words.
  std::string lost(const Tensors& nan) const {
    for (size_t n = 0; n < places_.size(); ++n) {
      if (places_[n].empty()) continue;
      const std::vector<double> got = nan[n].values();
      for (const size_t j : places_[n]) {
        if (std::isnan(got[j])) continue;
        std::ostringstream text;
        text << what_ << " " << n << "[" << j << "] is " << got[j];
        return text.str();
      }
    }
    return "";
  }

 private:
  const char* what_;
  std::vector<std::vector<size_t>> places_;  // by result
  int64_t count_ = 0;
};

/// Puts NaN, and the ends of its range, into elements of each input.
int64_t check_inputs(const OpSample& sample, const Tensors& values, const Tensors& d,
                     int64_t most) {
  const auto seeds = [&](const Vars&) { return d; };
  int64_t count = 0;
  for (size_t n = 0; n < values.size(); ++n) {
    if (!sample.inputs[n].is_float()) continue;
    for (const int64_t i : places(values[n].numel(), most)) {
      const auto with = [&](const Tensor& input) {
        Tensors in = values;
        in[n] = input;
        return run(sample, in, seeds);
      };
      const Result low = with(with_value(values[n], i, sample.inputs[n].low));
      const Result high = with(with_value(values[n], i, sample.inputs[n].high));
      const Dependence forward("output", low.outputs, high.outputs);
      const Dependence backward("gradient", low.gradients, high.gradients);
      count += forward.count();
      for (int kind = 0; kind < kNans; ++kind) {
        const Result result = with(with_nan(values[n], i, kind));
        INFO(sample.name() << ", " << name_of(values[n].dtype()) << ", NaN " << kind << " in input "
                           << n << " at " << i << " of " << values[n].shape());
        CHECK(forward.lost(result.outputs) == "");
        CHECK(backward.lost(result.gradients) == "");
      }
    }
  }
  return count;
}

/// Puts NaN into elements of the gradient of each output.
void check_gradients(const OpSample& sample, const Tensors& values, const Tensors& d,
                     int64_t most) {
  for (size_t n = 0; n < d.size(); ++n) {
    if (!d[n].defined()) continue;
    for (const int64_t i : places(d[n].numel(), most)) {
      const auto with = [&](const Tensor& gradient) {
        Tensors changed = d;
        changed[n] = gradient;
        return run(sample, values, [&](const Vars&) { return changed; }).gradients;
      };
      const Dependence dependence("gradient", with(with_value(d[n], i, -1)),
                                  with(with_value(d[n], i, 1)));
      for (int kind = 0; kind < kNans; ++kind) {
        INFO(sample.name() << ", " << name_of(d[n].dtype()) << ", NaN " << kind
                           << " in the gradient of output " << n << " at " << i);
        CHECK(dependence.lost(with(with_nan(d[n], i, kind))) == "");
      }
    }
  }
}

/// How many dependent outputs were seen, by op.
std::map<std::string, int64_t> check_all(const std::vector<OpSample>& list, int64_t most) {
  std::map<std::string, int64_t> seen;
  for (const OpSample& sample : list) {
    for (DType dtype : {DType::F32, DType::F64}) {
      const Tensors values = sample.make(dtype);
      const Tensors d = cotangents(sample.apply({values.begin(), values.end()}), 100);
      seen[sample.op] += check_inputs(sample, values, d, most);
      check_gradients(sample, values, d, most);
    }
  }
  return seen;
}

}  // namespace

TEST_CASE("a NaN reaches all that depends on it") {
  for (const auto& [op, count] : check_all(all_ops(), 12)) {
    INFO(op);
    CHECK(count > 0);
  }
}

TEST_CASE("a NaN reaches all that depends on it at sizes of many vectors and blocks") {
  for (const auto& [op, count] : check_all(large_ops(), 3)) {
    INFO(op);
    CHECK(count > 0);
  }
}

}  // namespace regla::test
