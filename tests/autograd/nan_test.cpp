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

/// Counts results that depend on an element, and describes the first that is a number all the same.
class Dependence {
 public:
  /// `nan`: the results where the element is NaN; `finite`: those for some finite values of it.
  void compare(const char* what, const Tensors& nan, const std::vector<Tensors>& finite) {
    for (size_t n = 0; n < nan.size(); ++n) {
      if (!nan[n].defined()) continue;
      const std::vector<double> got = nan[n].values();
      std::vector<std::vector<double>> values;
      for (const Tensors& results : finite) values.push_back(results[n].values());
      for (size_t j = 0; j < got.size(); ++j) {
        bool depends = false;
        for (const auto& other : values) depends = depends || other[j] != values[0][j];
        count_ += depends;
        if (depends && !std::isnan(got[j])) lost(what, n, j, got[j]);
      }
    }
  }

  int64_t count() const { return count_; }
  std::string lost() const { return lost_; }

 private:
  void lost(const char* what, size_t n, size_t j, double value) {
    if (!lost_.empty()) return;
    std::ostringstream text;
    text << what << " " << n << "[" << j << "] is " << value;
    lost_ = text.str();
  }

  int64_t count_ = 0;
  std::string lost_;
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
      std::vector<Tensors> outputs, gradients;
      for (const double end : {sample.inputs[n].low, sample.inputs[n].high}) {
        const Result finite = with(with_value(values[n], i, end));
        outputs.push_back(finite.outputs);
        gradients.push_back(finite.gradients);
      }
      for (int kind = 0; kind < kNans; ++kind) {
        const Result result = with(with_nan(values[n], i, kind));
        INFO(sample.name() << ", " << name_of(values[n].dtype()) << ", NaN " << kind << " in input "
                           << n << " at " << i << " of " << values[n].shape());
        Dependence forward, backward;
        forward.compare("output", result.outputs, outputs);
        backward.compare("gradient", result.gradients, gradients);
        CHECK(forward.lost() == "");
        CHECK(backward.lost() == "");
        count += forward.count();
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
      const std::vector<Tensors> finite = {with(with_value(d[n], i, -1)),
                                           with(with_value(d[n], i, 1))};
      for (int kind = 0; kind < kNans; ++kind) {
        INFO(sample.name() << ", " << name_of(d[n].dtype()) << ", NaN " << kind
                           << " in the gradient of output " << n << " at " << i);
        Dependence dependence;
        dependence.compare("gradient", with(with_nan(d[n], i, kind)), finite);
        CHECK(dependence.lost() == "");
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
