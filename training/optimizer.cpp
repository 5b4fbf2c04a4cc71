#include "training/optimizer.h"

#include <cmath>

#include "backends/kernels.h"

namespace regla {

AdamW::AdamW(const ParameterList& parameters, const TrainingConfig& config)
    : parameters_(parameters),
      beta1_(config.beta1),
      beta2_(config.beta2),
      epsilon_(config.epsilon),
      weight_decay_(config.weight_decay) {
  for (Parameter* parameter : parameters_) {
    moments_.push_back(
        {Tensor::zeros_like(parameter->value), Tensor::zeros_like(parameter->value)});
  }
}

double AdamW::gradient_norm() const {
  double sum = 0;
  for (const Parameter* parameter : parameters_) {
    if (parameter->gradient_empty) continue;
    const Tensor squares = Tensor::empty({1}, DType::F64, parameter->gradient.device());
    kernels(parameter->gradient.device()).sum_of_squares(parameter->gradient, squares);
    sum += squares.values()[0];
  }
  return std::sqrt(sum);
}

void AdamW::update(int64_t step, double learning_rate, double gradient_scale) {
  const double correction1 = 1 - std::pow(beta1_, static_cast<double>(step));
  const double correction2 = 1 - std::pow(beta2_, static_cast<double>(step));
  for (size_t i = 0; i < parameters_.size(); ++i) {
    Parameter& parameter = *parameters_[i];
    if (parameter.gradient_empty) continue;  // no part of this step's computation
    kernels(parameter.value.device())
        .adamw({.value = parameter.value,
                .gradient = parameter.gradient,
                .m = moments_[i].m,
                .v = moments_[i].v,
                .rate = learning_rate,
                .beta1 = beta1_,
                .beta2 = beta2_,
                .epsilon = epsilon_,
                .decay = is_matrix(parameter.role) ? weight_decay_ : 0,
                .gradient_scale = gradient_scale,
                .correction1 = correction1,
                .correction2 = correction2,
                .copy = parameter.copy});
  }
}

void AdamW::clear_gradients() {
  for (Parameter* parameter : parameters_) parameter->clear_gradient();
}

void AdamW::for_each(const std::function<void(const std::string&, Tensor&)>& f) {
  for (const auto moment : {&Moments::m, &Moments::v}) {
    const std::string prefix = moment == &Moments::m ? "m." : "v.";
    for (size_t i = 0; i < parameters_.size(); ++i) {
      f(prefix + parameters_[i]->name, moments_[i].*moment);
    }
  }
}

}  // namespace regla
