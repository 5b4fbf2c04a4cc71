#include <algorithm>
#include <cmath>
#include <limits>

#include "autograd/ops.h"
#include "tests/catch.h"
#include "tests/oracle.h"
#include "tests/support.h"

namespace regla::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int64_t B = 2, H = 3, K = 4;

struct Naive {
  Numbers features, log_rho, m;
};

/// docs/math.md, "The feature map", literally: the maximum that token t subtracts is over the
/// elements that the mode names, within its own document.
Naive naive(const Tensor& z, const Tensor& m0, const Tensor& reset, Maximum maximum, double scale) {
  const int64_t steps = z.dim(1);
  const Numbers values = z.values(), start = m0 ? m0.values() : Numbers(B * H, -kInfinity);
  const Numbers cuts = reset ? reset.values() : Numbers(static_cast<size_t>(B * steps), 0);
  Naive out = {Numbers(values.size()), Numbers(static_cast<size_t>(B * steps * H)), Numbers(B * H)};
  const auto at = [](int64_t i) { return static_cast<size_t>(i); };
  for (int64_t b = 0; b < B; ++b) {
    const auto document = [&](int64_t t) {
      int64_t count = 0;
      for (int64_t r = 0; r <= t; ++r) count += cuts[at(b * steps + r)] != 0;
      return count;
    };
    for (int64_t h = 0; h < H; ++h) {
      const auto maximum_at = [&](int64_t t) {
        double m =
            document(t) == 0 && maximum != Maximum::Token ? start[at(b * H + h)] : -kInfinity;
        for (int64_t r = 0; r < steps; ++r) {
          const bool counts = maximum == Maximum::Token     ? r == t
                              : maximum == Maximum::Running ? r <= t
                                                            : true;
          if (!counts || document(r) != document(t)) continue;
          for (int64_t i = 0; i < K; ++i) {
            m = std::max(m, values[at(((b * steps + r) * H + h) * K + i)]);
          }
        }
        return m;
      };
      double before = start[at(b * H + h)];
      for (int64_t t = 0; t < steps; ++t) {
        const double m = maximum_at(t);
        const bool fresh = cuts[at(b * steps + t)] != 0 || before == -kInfinity;
        out.log_rho[at((b * steps + t) * H + h)] = fresh ? 0 : before - m;
        before = m;
        for (int64_t i = 0; i < K; ++i) {
          const size_t place = at(((b * steps + t) * H + h) * K + i);
          out.features[place] = scale * std::exp(values[place] - m);
        }
      }
      out.m[at(b * H + h)] = before;
    }
  }
  return out;
}

Tensor maxima_before() {
  return Tensor::of({B, H}, Numbers{-kInfinity, 0.5, 100, -3, 1, -kInfinity});
}

}  // namespace

TEST_CASE("safe exp is what the paper's maxima give") {
  for (int64_t T : {1, 2, 9, 40}) {
    const Tensor z = spaced_tensor({B, T, H, K}, DType::F64, 3, -3, 3);
    for (Maximum maximum : {Maximum::Running, Maximum::Sequence, Maximum::Token}) {
      for (bool earlier : {false, true}) {
        if (earlier && maximum == Maximum::Token) continue;
        for (double density : {0.0, 0.2, 1.0}) {
          const Tensor m0 = earlier ? maxima_before() : Tensor{};
          const Tensor reset = density > 0 ? random_mask({B, T}, 5, density) : Tensor{};
          const Naive expected = naive(z, m0, reset, maximum, 0.3);
          for (DType dtype : {DType::F64, DType::F32}) {
            const SafeExp got =
                safe_exp(converted(z, dtype), converted(m0, dtype), reset, maximum, 0.3);
            const double bound = dtype == DType::F64 ? 1e-14 : 1e-6;
            INFO("T " << T << ", maximum " << static_cast<int>(maximum) << ", m0 " << earlier
                      << ", resets " << density << ", " << name_of(dtype));
            CHECK(relative_error(got.features.value.values(), expected.features) < bound);
            if (maximum == Maximum::Token) {
              CHECK_FALSE(got.log_rho.defined());
              CHECK_FALSE(got.m.defined());
              continue;
            }
            CHECK(relative_error(got.log_rho.value.values(), expected.log_rho) < bound);
            CHECK(relative_error(got.m.value.values(), expected.m) < bound);
          }
        }
      }
    }
  }
}

TEST_CASE("keys between tokens: segments with a carried maximum are the whole sequence") {
  const Tensor z = spaced_tensor({1, 12, 1, K}, DType::F64, 3, -3, 3);
  const SafeExp whole = safe_exp(z, {}, {}, Maximum::Running, 1);
  const Tensor rows = z.reshape({12, K});
  for (int64_t split = 1; split < 12; ++split) {
    const Tensor a = rows.slice(0, split).reshape({1, split, 1, K});
    const Tensor b = rows.slice(split, 12).reshape({1, 12 - split, 1, K});
    const SafeExp first = safe_exp(a, {}, {}, Maximum::Running, 1);
    const SafeExp second = safe_exp(b, first.m, {}, Maximum::Running, 1);
    CHECK(same_bits(concatenate(first.features, second.features).value, whole.features.value));
    CHECK(same_bits(concatenate(first.log_rho, second.log_rho).value, whole.log_rho.value));
    CHECK(same_bits(second.m.value, whole.m.value));
  }
}

TEST_CASE("what attains a maximum takes its gradient; ties go to the earliest") {
  // features = e^(z - m): raising the one maximum lowers every other feature.
  const Tensor z = Tensor::of({1, 3, 1, 2}, Numbers{1, 1, 0, 1, 1, -1});
  Tape tape;
  const Var leaf = tape.leaf(z);
  const SafeExp out = safe_exp(leaf, {}, {}, Maximum::Running, 1);
  tape.backward({out.m}, {Tensor::full({1, 1}, 5, DType::F64)});
  CHECK(tape.gradient(leaf).values() == Numbers{5, 0, 0, 0, 0, 0});
  const Var again = tape.leaf(z);
  const SafeExp token = safe_exp(again, {}, {}, Maximum::Token, 1);
  tape.backward({token.features}, {Tensor::of({1, 3, 1, 2}, Numbers{0, 0, 1, 0, 0, 1})});
  const double e1 = std::exp(-1), e2 = std::exp(-2);
  CHECK(relative_error(tape.gradient(again).values(), {0, 0, e1, -e1, -e2, e2}) < 1e-15);
}

TEST_CASE("a row of NaN has no maximum and spoils no other token's gradient") {
  constexpr int64_t kFeatures = 40;  // more than a vector
  const auto gradient = [](const Tensor& z) {
    Tape tape;
    const Var leaf = tape.leaf(z);
    const SafeExp out = safe_exp(leaf, {}, {}, Maximum::Token, 1);
    tape.backward({out.features}, {normal_tensor(z.shape(), z.dtype(), 4)});
    return tape.gradient(leaf).values();
  };
  for (DType dtype : {DType::F32, DType::F64}) {
    const Tensor sound = spaced_tensor({1, 3, 1, kFeatures}, DType::F64, 3, -3, 3);
    Numbers values = sound.values();
    const auto middle = values.begin() + kFeatures;
    std::fill(middle, middle + kFeatures, std::numeric_limits<double>::quiet_NaN());
    const Numbers expected = gradient(converted(sound, dtype));
    const Numbers actual = gradient(converted(Tensor::of(sound.shape(), values), dtype));
    for (size_t i = 0; i < actual.size(); ++i) {
      CHECK((i / kFeatures == 1 ? std::isnan(actual[i]) : actual[i] == expected[i]));
    }
  }
}

TEST_CASE("scores far apart stay finite") {
  for (DType dtype : {DType::F32, DType::F64}) {
    const Tensor z =
        converted(Tensor::of({1, 4, 1, 2}, Numbers{-1e4, -2e4, 0, -1e4, 1e4, 3, 1e4, 1e4}), dtype);
    Tape tape;
    const Var leaf = tape.leaf(z);
    const SafeExp out = safe_exp(leaf, {}, {}, Maximum::Running, 1);
    CHECK(out.features.value.values() == Numbers{1, 0, 1, 0, 1, 0, 1, 1});
    CHECK(out.log_rho.value.values() == Numbers{0, -1e4, -1e4, 0});
    tape.backward({out.features, out.log_rho, out.m},
                  {Tensor::full(z.shape(), 1, dtype), Tensor::full({1, 4, 1}, 1, dtype),
                   Tensor::full({1, 1}, 1, dtype)});
    CHECK(all_finite(tape.gradient(leaf)));
  }
}

}  // namespace regla::test
