// Example 2: gradients.
//
// A tape records ops while it lives and runs them backwards: a flat list and a reverse `for`. The
// function here is a classifier of two points,
//
//     h = gelu(x W^T + b)        loss = mean cross-entropy of softmax(h E^T)
//
// in double, so that a central difference can check the derivatives of the tape:
//
//     d loss / d w  =  (loss(w + e) - loss(w - e)) / 2e  +  O(e^2)

#include <cmath>
#include <cstdio>
#include <vector>

#include "autograd/ops.h"

using regla::Parameter;
using regla::Tape;
using regla::Tensor;
using regla::Var;

struct Model {
  Parameter W, b, E;

  Var loss(const Tensor& x, const Tensor& classes) {
    // `use` puts a parameter on the tape, or takes it as a constant when none records.
    const Var h = regla::gelu(regla::linear(x, use(W), use(b)), regla::Gelu::Erf);
    return regla::cross_entropy(h, use(E), classes);
  }
};

double number(const Var& scalar) { return scalar.value.values()[0]; }

/// Compares the gradient of every element of a parameter; returns the largest difference.
double check_gradient(Model& model, Parameter& p, const Tensor& x, const Tensor& classes) {
  const double e = 1e-5;
  double worst = 0;
  for (int64_t i = 0; i < p.value.numel(); ++i) {
    double& w = p.value.data<double>()[i];
    const double before = w;
    w = before + e;
    const double above = number(model.loss(x, classes));  // no tape lives: nothing is recorded
    w = before - e;
    const double below = number(model.loss(x, classes));
    w = before;
    const double difference = (above - below) / (2 * e);
    worst = std::fmax(worst, std::fabs(difference - p.gradient.data<double>()[i]));
  }
  std::printf("gradient of %s against central differences: %.1e\n", p.name.c_str(), worst);
  return worst;
}

int main() {
  using Values = std::vector<double>;
  const Tensor x = Tensor::of({2, 3}, Values{1, 0, -1, 0.5, 2, 1});
  const Tensor classes = Tensor::of({2}, std::vector<int32_t>{0, 2});
  Model model;
  model.W = {"W", Tensor::of({2, 3}, Values{0.1, -0.2, 0.3, 0.4, 0.5, -0.6}), {}};
  model.b = {"b", Tensor::of({2}, Values{0, 0.1}), {}};
  model.E = {"E", Tensor::of({3, 2}, Values{1, -1, 0.5, 0.2, -0.3, 0.8}), {}};
  Parameter* parameters[] = {&model.W, &model.b, &model.E};

  double first = 0, last = 0, worst = 0;
  for (int step = 0; step <= 100; ++step) {
    for (Parameter* p : parameters) p->clear_gradient();
    Tape tape;
    const Var loss = model.loss(x, classes);
    if (step == 0) std::printf("the tape holds %d ops\n", static_cast<int>(tape.size()));
    tape.backward(loss);  // fills the gradients and empties the tape
    if (step == 0) {
      first = number(loss);
      regla::NoGrad pause;
      for (Parameter* p : parameters) {
        worst = std::fmax(worst, check_gradient(model, *p, x, classes));
      }
    }
    // Gradient descent.
    for (Parameter* p : parameters) {
      for (int64_t i = 0; i < p->value.numel(); ++i) {
        p->value.data<double>()[i] -= 0.5 * p->gradient.data<double>()[i];
      }
    }
    last = number(loss);
    if (step % 25 == 0) std::printf("step %3d   loss %.4f\n", step, last);
  }
  return worst < 1e-8 && last < 0.1 * first ? 0 : 1;
}
