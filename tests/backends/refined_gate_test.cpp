#include <cmath>
#include <limits>

#include "autograd/ops.h"
#include "tests/matchers.h"
#include "tests/oracle.h"
#include "tests/support.h"

namespace regla::test {
namespace {

using Real = long double;

Real sigma(Real x) { return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)); }

/// log F and its derivatives in extended precision, as sums of positive terms:
///     F = g (g + 2r(1-g)),  1 - F = (1-g) ((1-g) + 2g(1-r))
struct Exact {
  Real log_f, d_z_g, d_z_r;
  Exact(Real z_g, Real z_r) {
    const Real g = sigma(z_g), not_g = sigma(-z_g), r = sigma(z_r), not_r = sigma(-z_r);
    const Real inner = g + 2 * r * not_g;  // F / g
    log_f = z_g > 0 ? std::log1p(-not_g * (not_g + 2 * g * not_r)) : std::log(g) + std::log(inner);
    d_z_g = 2 * not_g * (not_r * g + r * not_g) / inner;
    d_z_r = 2 * not_g * r * not_r / inner;
  }
};

struct Gate {
  Numbers log_f, d_z_g, d_z_r;
};

Gate gate(const Numbers& z_g, const Numbers& z_r, DType dtype) {
  const Shape shape = {static_cast<int64_t>(z_g.size())};
  Tape tape;
  const Var g = tape.leaf(converted(Tensor::of(shape, z_g), dtype));
  const Var r = tape.leaf(converted(Tensor::of(shape, z_r), dtype));
  const Var log_f = refined_gate(g, r);
  tape.backward({log_f}, {Tensor::full(shape, 1, dtype)});
  return {log_f.value.values(), tape.gradient(g).values(), tape.gradient(r).values()};
}

/// Pairs on a grid: near 0, moderate and far out.
void grid(double limit, double step, Numbers& z_g, Numbers& z_r) {
  for (double g = -limit; g <= limit; g += step) {
    for (double r = -limit; r <= limit; r += step) {
      z_g.push_back(g);
      z_r.push_back(r);
    }
  }
}

/// |a - b| / |b| at its worst, where b is a normal number of the type.
double worst(const Numbers& got, const std::vector<Real>& wanted, double smallest,
             const Numbers& z_g, const Numbers& z_r) {
  double error = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::abs(wanted[i]) < smallest) {
      if (!(std::abs(got[i]) <= 2 * smallest)) return INFINITY;
      continue;
    }
    const double here = static_cast<double>(std::abs((got[i] - wanted[i]) / wanted[i]));
    if (!(here <= error)) {
      error = here;
      UNSCOPED_INFO("at z_g " << z_g[i] << ", z_r " << z_r[i] << ": " << got[i] << ", exactly "
                              << static_cast<double>(wanted[i]));
    }
  }
  return error;
}

}  // namespace

TEST_CASE("log F and its slopes keep their digits near F = 1 and near 0") {
  for (const auto& [limit, step] : {std::pair<double, double>{4, 0.25}, {40, 2.5}, {1e4, 1250}}) {
    Numbers z_g, z_r;
    grid(limit, step, z_g, z_r);
    std::vector<Real> log_f, d_z_g, d_z_r;
    for (size_t i = 0; i < z_g.size(); ++i) {
      const Exact exact(z_g[i], z_r[i]);
      log_f.push_back(exact.log_f);
      d_z_g.push_back(exact.d_z_g);
      d_z_r.push_back(exact.d_z_r);
    }
    for (DType dtype : {DType::F64, DType::F32}) {
      const Gate got = gate(z_g, z_r, dtype);
      // Products of two sigmoids leave the floats before either does.
      const double smallest = dtype == DType::F64 ? 1e-300 : 1e-37;
      const double bound = dtype == DType::F64 ? 1e-13 : 3e-6;
      INFO("up to " << limit << ", " << name_of(dtype));
      CHECK(worst(got.log_f, log_f, smallest, z_g, z_r) < bound);
      CHECK(worst(got.d_z_g, d_z_g, smallest, z_g, z_r) < bound);
      CHECK(worst(got.d_z_r, d_z_r, smallest, z_g, z_r) < bound);
    }
  }
}

TEST_CASE("r = 1/2 is the vanilla gate") {
  Numbers z_g;
  for (double z = -100; z <= 100; z += 0.37) z_g.push_back(z);
  const Numbers half(z_g.size(), 0);
  const Shape shape = {static_cast<int64_t>(z_g.size())};
  for (DType dtype : {DType::F64, DType::F32}) {
    Tape tape;
    const Var z = tape.leaf(converted(Tensor::of(shape, z_g), dtype));
    const Var vanilla = log_sigmoid(z);
    tape.backward({vanilla}, {Tensor::full(shape, 1, dtype)});
    const Gate refined = gate(z_g, half, dtype);
    const double bound = dtype == DType::F64 ? 1e-14 : 1e-6;
    const Numbers log_g = vanilla.value.values(), slope = tape.gradient(z).values();
    for (size_t i = 0; i < z_g.size(); ++i) {
      INFO("z_g " << z_g[i]);
      CHECK(std::abs(refined.log_f[i] - log_g[i]) <= bound * std::abs(log_g[i]));
      CHECK(std::abs(refined.d_z_g[i] - slope[i]) <= bound * std::abs(slope[i]));
    }
  }
}

TEST_CASE("1 - F and the extremes") {
  // 1 - F = (1-g)(1 + g - 2rg), as Eq. 16 gives it.
  Numbers z_g, z_r;
  grid(6, 0.5, z_g, z_r);
  const Gate got = gate(z_g, z_r, DType::F64);
  for (size_t i = 0; i < z_g.size(); ++i) {
    const double g = 1 / (1 + std::exp(-z_g[i])), r = 1 / (1 + std::exp(-z_r[i]));
    const double F = (1 - r) * g * g + r * (1 - (1 - g) * (1 - g));
    CHECK(std::exp(got.log_f[i]) == Approx(F).epsilon(1e-12));
    CHECK(-std::expm1(got.log_f[i]) == Approx((1 - g) * (1 + g - 2 * r * g)).epsilon(1e-11));
    // Figure 3's slopes.
    const double dF_g = 2 * g * (1 - g) * ((1 - r) * g + r * (1 - g));
    const double dF_r = 2 * g * (1 - g) * r * (1 - r);
    CHECK(got.d_z_g[i] * F == Approx(dF_g).epsilon(1e-12));
    CHECK(got.d_z_r[i] * F == Approx(dF_r).epsilon(1e-12));
  }
  for (DType dtype : {DType::F64, DType::F32}) {
    for (double z : {50.0, 95.0, 1e4}) {
      for (double r : {-1e4, -95.0, 0.0, 95.0, 1e4}) {
        const Gate far = gate({z, -z}, {r, r}, dtype);
        for (const Numbers* part : {&far.log_f, &far.d_z_g, &far.d_z_r}) {
          for (double value : *part) CHECK(std::isfinite(value));
        }
        CHECK(far.log_f[0] <= 0);
        CHECK(far.log_f[0] > -1e-20);
        CHECK(far.log_f[1] < -40);
      }
    }
  }
}

}  // namespace regla::test
