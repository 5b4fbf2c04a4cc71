#include "layers/parameters.h"

#include <type_traits>

#include "backends/copies.h"
#include "core/parallel.h"

namespace regla {
namespace {

/// FNV-1a: the random stream of a parameter is its name.
uint64_t stream_of(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (unsigned char c : name) hash = (hash ^ c) * 0x100000001b3u;
  return hash;
}

/// Element i is f(i), rounded to the type. Never a whole tensor in double beside it: an embedding
/// is large.
template <class F>
Tensor made(const Shape& shape, DType dtype, F&& f) {
  Tensor values = Tensor::empty(shape, dtype == DType::F64 ? DType::F64 : DType::F32);
  const auto write = [&](auto* element) {
    parallel_for(values.numel(), int64_t{1} << 12, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        element[i] =
            static_cast<std::remove_pointer_t<decltype(element)>>(f(static_cast<uint64_t>(i)));
      }
    });
  };
  dtype == DType::F64 ? write(values.data<double>()) : write(values.data<float>());
  return values;
}

}  // namespace

template <class F>
Parameter ParameterFactory::filled(const std::string& name, const Shape& shape, Role role,
                                   F&& initial) const {
  const Tensor values = source_ ? source_(name, shape, sums()) : initial();
  Parameter parameter = {
      .name = name, .value = converted(values, sums()).on(device_), .role = role};
  if (is_matrix(role)) parameter.keep_copy(dtype_);
  return parameter;
}

Random random_numbers(uint64_t seed, const std::string& name) { return {seed, stream_of(name)}; }

Parameter ParameterFactory::normal(const std::string& name, const Shape& shape, Role role,
                                   double deviation) const {
  const Random numbers = random_numbers(seed_, name);
  return filled(name, shape, role, [&] {
    return made(shape, sums(), [&](uint64_t i) { return deviation * numbers.normal(i); });
  });
}

Parameter ParameterFactory::uniform(const std::string& name, const Shape& shape, double low,
                                    double high, double (*map)(double)) const {
  const Random numbers = random_numbers(seed_, name);
  return filled(name, shape, Role::Vector, [&] {
    return made(shape, sums(),
                [&](uint64_t i) { return map(low + (high - low) * numbers.uniform(i)); });
  });
}

Parameter ParameterFactory::constant(const std::string& name, const Shape& shape,
                                     double value) const {
  return filled(name, shape, Role::Vector, [&] { return Tensor::full(shape, value, DType::F64); });
}

}  // namespace regla
