#pragma once

#include <functional>
#include <string>
#include <utility>

#include "autograd/parameter.h"
#include "core/random.h"

namespace regla {

/// The random numbers that belong to a name under a seed.
Random random_numbers(uint64_t seed, const std::string& name);

/// Gives the values of a parameter, of this shape and type and on the CPU, or throws.
using ParameterSource =
    std::function<Tensor(const std::string& name, const Shape& shape, DType dtype)>;

/// Makes parameters for activations of a type (A): masters and gradients are of its type of sums
/// (S), and what products read has a copy in A where that is another type. They lie on a device and
/// begin with reproducible values: element i of parameter `name` depends on the seed, the name and
/// i, so neither the order of construction nor the rest of the model nor the device matters. They
/// are drawn on the host, one parameter at a time.
class ParameterFactory {
 public:
  ParameterFactory(uint64_t seed, DType activations, Device device = {})
      : seed_(seed), dtype_(activations), device_(device) {}
  /// Takes the values from elsewhere: a model takes no memory that its source has not.
  ParameterFactory(ParameterSource source, DType activations, Device device = {})
      : source_(std::move(source)), seed_(0), dtype_(activations), device_(device) {}

  /// Normal with the given standard deviation.
  Parameter normal(const std::string& name, const Shape& shape, Role role, double deviation) const;
  /// Uniform in [low, high), each element passed through `map`.
  Parameter uniform(const std::string& name, const Shape& shape, Role role, double low, double high,
                    double (*map)(double)) const;
  /// Equal numbers.
  Parameter constant(const std::string& name, const Shape& shape, Role role, double value) const;
  /// The type of activations.
  DType dtype() const { return dtype_; }
  /// The type of masters, states and sums.
  DType sums() const { return sum_type(dtype_); }
  Device device() const { return device_; }

 private:
  /// Of the values that the source gives, else of those that `initial` makes.
  template <class F>
  Parameter filled(const std::string& name, const Shape& shape, Role role, F&& initial) const;

  ParameterSource source_;
  uint64_t seed_;
  DType dtype_;
  Device device_;
};

}  // namespace regla
