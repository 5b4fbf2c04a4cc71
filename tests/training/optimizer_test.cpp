#include "training/optimizer.h"

#include <cmath>

#include "tests/matchers.h"

namespace regla {
namespace {

Parameter parameter(const std::string& name, const std::vector<double>& values, Role role) {
  return {.name = name, .value = Tensor::of({2}, values), .role = role};
}

void give(Parameter& p, const std::vector<double>& gradient) {
  p.gradient = Tensor::of({2}, gradient);
  p.gradient_empty = false;
}

}  // namespace

TEST_CASE("AdamW follows its definition") {
  TrainingConfig config;
  config.beta1 = 0.9;
  config.beta2 = 0.99;
  config.epsilon = 1e-6;
  config.weight_decay = 0.1;
  Parameter matrix = parameter("w", {1, -2}, Role::Matrix),
            bias = parameter("b", {1, -2}, Role::Vector);
  AdamW adam({&matrix, &bias}, config);
  double w[2] = {1, -2}, b[2] = {1, -2}, m[2] = {}, v[2] = {};
  const std::vector<std::vector<double>> gradients = {{0.5, -3}, {0.25, 0}, {-1, 2}};
  for (int step = 1; step <= 3; ++step) {
    const auto& gradient = gradients[static_cast<size_t>(step - 1)];
    give(matrix, gradient);
    give(bias, gradient);
    const double rate = 0.1 / step, scale = 0.5;
    adam.update(Tensor::of({3}, adam.rates(step, rate)), Tensor::full({1}, scale, DType::F64));
    for (size_t i = 0; i < 2; ++i) {
      const double g = scale * gradient[i];
      m[i] = 0.9 * m[i] + 0.1 * g;
      v[i] = 0.99 * v[i] + 0.01 * g * g;
      const double move =
          m[i] / (1 - std::pow(0.9, step)) / (std::sqrt(v[i] / (1 - std::pow(0.99, step))) + 1e-6);
      w[i] -= rate * (move + 0.1 * w[i]);
      b[i] -= rate * move;
    }
    for (size_t i = 0; i < 2; ++i) {
      CHECK(matrix.value.values()[i] == Approx(w[i]).epsilon(1e-12));
      CHECK(bias.value.values()[i] == Approx(b[i]).epsilon(1e-12));
    }
  }
}

TEST_CASE("the gradient norm is global and clipping never makes it longer") {
  Parameter a = parameter("a", {0, 0}, Role::Matrix), b = parameter("b", {0, 0}, Role::Matrix);
  AdamW adam({&a, &b}, TrainingConfig{});
  using Numbers = std::vector<double>;
  const Tensor losses = Tensor::of({2}, Numbers{0.5, 1.5});
  const auto clipped = [&](double largest) {
    const Tensor report = Tensor::empty({3}, DType::F64);
    adam.clip(losses, largest, report);
    return report.values();
  };
  give(a, {3, 0});
  CHECK(clipped(0) == Numbers{2, 3, 1});  // b has no gradient yet
  give(b, {0, 4});
  CHECK(clipped(0) == Numbers{2, 5, 1});
  CHECK(clipped(1) == Numbers{2, 5, 0.2});
  CHECK(clipped(6) == Numbers{2, 5, 1});
  adam.clear_gradients();
  CHECK(clipped(1) == Numbers{2, 0, 1});
}

TEST_CASE("after an update that went bad none changes anything until it is forgotten") {
  Parameter a = parameter("a", {1, 2}, Role::Matrix);
  AdamW adam({&a}, TrainingConfig{});
  const auto update = [&](double gradient, double loss) {
    give(a, {gradient, 1});
    const Tensor report = Tensor::empty({3}, DType::F64);
    adam.clip(Tensor::full({1}, loss, DType::F64), 1, report);
    adam.update(Tensor::of({3}, adam.rates(1, 0.1)), report.slice(2, 3));
    return a.value.values() != std::vector<double>{1, 2};
  };
  CHECK_FALSE(update(1, INFINITY));
  CHECK_FALSE(update(1, 0));
  adam.forget_bad_updates();
  CHECK_FALSE(update(NAN, 0));
  CHECK_FALSE(update(1, 0));
  adam.for_each([](const std::string&, Tensor& moment) {
    CHECK(moment.values() == std::vector<double>{0, 0});
  });
  adam.forget_bad_updates();
  CHECK(update(1, 0));
}

TEST_CASE("AdamW renews the copy that products read in the same pass") {
  Parameter matrix{
      .name = "w", .value = Tensor::of({2}, std::vector<float>{1, -2}), .role = Role::Matrix};
  matrix.keep_copy(DType::BF16);
  matrix.gradient = Tensor::of({2}, std::vector<float>{0.3f, 0.7f});
  matrix.gradient_empty = false;
  AdamW adam({&matrix}, TrainingConfig{});
  adam.update(Tensor::of({3}, adam.rates(1, 0.01)), Tensor::full({1}, 1, DType::F64));
  CHECK(matrix.value.values()[0] < 1);
  CHECK(matrix.copy.values() == converted(matrix.value, DType::BF16).values());
  CHECK(matrix.copy.values() != matrix.value.values());
}

}  // namespace regla
