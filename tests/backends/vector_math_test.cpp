#include "backends/cpu/vector_math.h"

#include <limits>

#include "tests/catch.h"

namespace regla::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();

/// Calls f with floats over [low, high], evenly, ends included.
template <class F>
void sweep(double low, double high, int count, F&& f) {
  for (int i = 0; i <= count; ++i) f(static_cast<float>(low + (high - low) * i / count));
}

/// The worst relative (or absolute) error of `got` against the double function over a range.
template <class Got, class Exact>
double worst(double low, double high, bool relative, Got&& got, Exact&& exact) {
  double error = 0;
  float at = 0;
  sweep(low, high, 200000, [&](float x) {
    const double wanted = exact(static_cast<double>(x));
    const double difference = std::abs(static_cast<double>(got(x)) - wanted);
    const double here = relative && wanted != 0 ? difference / std::abs(wanted) : difference;
    if (!(here <= error)) {
      error = here;
      at = x;
    }
  });
  UNSCOPED_INFO("worst at " << at << ": " << error);
  return error;
}

}  // namespace

TEST_CASE("exp is good to 2e-7 and cuts off where it says") {
  const auto got = [](float x) { return math::exp(x); };
  const auto exact = [](double x) { return std::exp(x); };
  CHECK(worst(-86.89, 88.72, true, got, exact) < 2e-7);
  CHECK(worst(-1, 1, true, got, exact) < 2e-7);
  CHECK(worst(-1e-3, 1e-3, true, got, exact) < 2e-7);
  CHECK(math::exp(0.0f) == 1);
  CHECK(math::exp(-0.0f) == 1);
  for (float x : {-86.91f, -90.0f, -1e4f, -3e38f, -kInfinity}) CHECK(math::exp(x) == 0);
  for (float x : {88.8f, 89.0f, 1e4f, 3e38f, kInfinity}) CHECK(math::exp(x) == kInfinity);
  CHECK(std::isnan(math::exp(kNan)));
  sweep(-100, -80, 100000, [](float x) {
    const float y = math::exp(x);
    CHECK_FALSE((y > 0 && y < std::numeric_limits<float>::min()));
  });
}

TEST_CASE("log is good to 2e-7 for normal numbers") {
  const auto got = [](float x) { return math::log(x); };
  const auto exact = [](double x) { return std::log(x); };
  CHECK(worst(0.5, 2, true, got, exact) < 2e-7);
  CHECK(worst(2, 1e6, true, got, exact) < 2e-7);
  CHECK(worst(1e-6, 0.5, true, got, exact) < 2e-7);
  for (float x = std::numeric_limits<float>::min(); x < 1e38f; x *= 1.37f) {
    const double wanted = std::log(static_cast<double>(x));
    CHECK(std::abs(math::log(x) - wanted) <= 2e-7 * std::abs(wanted));
  }
  CHECK(math::log(1.0f) == 0);
}

TEST_CASE("log1p keeps its digits near 0") {
  const auto got = [](float x) { return math::log1p(x); };
  const auto exact = [](double x) { return std::log1p(x); };
  CHECK(worst(-0.75, 1, true, got, exact) < 2.5e-7);
  CHECK(worst(-0.999, -0.75, true, got, exact) < 2.5e-7);
  CHECK(worst(1, 1e6, true, got, exact) < 2.5e-7);
  for (float x = 1e-37f; x < 1; x *= 1.91f) {
    for (float y : {x, -0.9f * x}) {
      const double wanted = std::log1p(static_cast<double>(y));
      INFO(y);
      CHECK(std::abs(math::log1p(y) - wanted) <= 2.5e-7 * std::abs(wanted));
    }
  }
  CHECK(math::log1p(0.0f) == 0);
}

TEST_CASE("sigmoid and its log") {
  const auto exact = [](double x) { return 1 / (1 + std::exp(-x)); };
  const auto exact_log = [](double x) {
    return std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x)));
  };
  const auto got = [](float x) { return math::sigmoid(x); };
  const auto got_log = [](float x) { return math::log_sigmoid(x); };
  CHECK(worst(-86, 100, true, got, exact) < 3e-7);
  CHECK(worst(-2, 2, true, got, exact) < 3e-7);
  CHECK(worst(-100, 86, true, got_log, exact_log) < 4e-7);
  CHECK(worst(-2, 2, true, got_log, exact_log) < 4e-7);
  CHECK(math::sigmoid(kInfinity) == 1);
  CHECK(math::sigmoid(-kInfinity) == 0);
  CHECK(math::log_sigmoid(kInfinity) == 0);
  CHECK(math::log_sigmoid(-kInfinity) == -kInfinity);
  CHECK(math::log_sigmoid(-1e4f) == -1e4f);
  CHECK(std::isnan(math::sigmoid(kNan)));
  CHECK(std::isnan(math::log_sigmoid(kNan)));
  CHECK(math::sigmoid(-1e4) == 0);
  CHECK(math::log_sigmoid(-1e4) == -1e4);
}

TEST_CASE("tanh is good to 1e-7 absolutely and erf to 5e-7 relatively") {
  const auto tanh = [](float x) { return math::tanh(x); };
  const auto erf = [](float x) { return math::erf(x); };
  CHECK(worst(-12, 12, false, tanh, [](double x) { return std::tanh(x); }) < 1e-7);
  CHECK(worst(-1, 1, false, tanh, [](double x) { return std::tanh(x); }) < 1e-7);
  CHECK(worst(-6, 6, true, erf, [](double x) { return std::erf(x); }) < 5e-7);
  CHECK(worst(-0.1, 0.1, true, erf, [](double x) { return std::erf(x); }) < 5e-7);
  for (float x : {20.0f, 1e10f, kInfinity}) {
    CHECK(math::tanh(x) == 1);
    CHECK(math::tanh(-x) == -1);
    CHECK(math::erf(x) == 1);
    CHECK(math::erf(-x) == -1);
  }
  CHECK(std::isnan(math::tanh(kNan)));
  CHECK(std::isnan(math::erf(kNan)));
}

TEST_CASE("expm1 keeps its digits near 0") {
  const auto got = [](float x) { return math::expm1(x); };
  const auto exact = [](double x) { return std::expm1(x); };
  CHECK(worst(-87, -0.5, true, got, exact) < 4e-7);
  CHECK(worst(-0.5, 0.5, true, got, exact) < 4e-7);
  CHECK(worst(0.5, 88, true, got, exact) < 4e-7);
  for (float x = 1e-37f; x < 0.5f; x *= 1.91f) {
    CHECK(std::abs(math::expm1(-x) - std::expm1(-static_cast<double>(x))) <= 4e-7 * x);
  }
  CHECK(math::expm1(-kInfinity) == -1);
  CHECK(math::expm1(0.0f) == 0);
  CHECK(std::isnan(math::expm1(kNan)));
}

TEST_CASE("sin and cos are good to 2e-7 absolutely") {
  const auto part = [](bool cosine) {
    return [=](float x) {
      float s, c;
      math::sin_cos(x, s, c);
      return cosine ? c : s;
    };
  };
  for (double range : {0.01, 3.2, 30.0, 3000.0}) {
    CHECK(worst(-range, range, false, part(false), [](double x) { return std::sin(x); }) < 2e-7);
    CHECK(worst(-range, range, false, part(true), [](double x) { return std::cos(x); }) < 2e-7);
  }
  CHECK(part(false)(0.0f) == 0);
  CHECK(part(true)(0.0f) == 1);
  CHECK(std::isnan(part(false)(kNan)));
}

TEST_CASE("the double versions are the standard library's") {
  CHECK(math::exp(1.5) == std::exp(1.5));
  CHECK(math::log(1.5) == std::log(1.5));
  CHECK(math::log1p(1.5e-9) == std::log1p(1.5e-9));
  CHECK(math::tanh(0.3) == std::tanh(0.3));
  CHECK(math::erf(0.3) == std::erf(0.3));
}

}  // namespace regla::cpu
