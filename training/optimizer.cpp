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
  if (!parameters_.empty()) device_ = parameters_.front()->value.device();
  squares_ = Tensor::zeros({static_cast<int64_t>(parameters_.size())}, DType::F64, device_);
  latch_ = Tensor::zeros({1}, DType::I32, device_);
}

void AdamW::clip(const Tensor& losses, double largest, const Tensor& report) {
  std::vector<Tensor> gradients;
  for (const Parameter* parameter : parameters_) {
    gradients.push_back(parameter->gradient_empty ? Tensor{} : parameter->gradient);
  }
  kernels(device_).sums_of_squares(gradients, squares_);
  kernels(device_).clip_factor(squares_, losses, largest, latch_, report);
}

std::vector<double> AdamW::rates(int64_t step, double learning_rate) const {
  return {learning_rate, 1 - std::pow(beta1_, static_cast<double>(step)),
          1 - std::pow(beta2_, static_cast<double>(step))};
}

void AdamW::update(const Tensor& rates, const Tensor& factor) {
  AdamWArgs args = {.weights = {},
                    .rates = rates,
                    .factor = factor,
                    .beta1 = beta1_,
                    .beta2 = beta2_,
                    .epsilon = epsilon_};
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Parameter& parameter = *parameters_[i];
    if (parameter.gradient_empty) continue;  // no part of this step's computation
    args.weights.push_back({.value = parameter.value,
                            .gradient = parameter.gradient,
                            .m = moments_[i].m,
                            .v = moments_[i].v,
                            .copy = parameter.copy,
                            .decay = is_matrix(parameter.role) ? weight_decay_ : 0});
  }
  kernels(device_).adamw(args);
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
