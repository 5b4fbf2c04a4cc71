#include "layers/parameters.h"

#include <type_traits>

#include "backends/copies.h"
#include "core/normal_numbers.h"
#include "core/parallel.h"

namespace regla {
namespace {

/// FNV-1a: the random stream of a parameter is its name.
uint64_t stream_of(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (unsigned char c : name) hash = (hash ^ c) * 0x100000001b3u;
  return hash;
}

/// `write(element, first, count)` writes elements [first, first + count) from `element` on, in
/// blocks. Never a whole tensor in double beside one in float: an embedding is large.
template <class F>
Tensor made(const Shape& shape, DType dtype, F&& write) {
  Tensor values = Tensor::empty(shape, dtype == DType::F64 ? DType::F64 : DType::F32);
  const auto fill = [&](auto* element) {
    parallel_for(values.numel(), int64_t{1} << 12, [&](int64_t begin, int64_t end) {
      write(element + begin, static_cast<uint64_t>(begin), end - begin);
    });
  };
  dtype == DType::F64 ? fill(values.data<double>()) : fill(values.data<float>());
  return values;
}

}  // namespace

template <class F>
Parameter ParameterFactory::filled(const std::string& name, const Shape& shape, Role role,
                                   F&& initial) const {
  const Tensor values = source_ ? source_(name, shape, sums()) : initial();
  Parameter parameter = {
      .name = name, .value = converted(values, sums()).on(device_), .role = role};
  if (is_operand(role)) parameter.keep_copy(dtype_);
  return parameter;
}

Random random_numbers(uint64_t seed, const std::string& name) { return {seed, stream_of(name)}; }

Parameter ParameterFactory::normal(const std::string& name, const Shape& shape, Role role,
                                   double deviation) const {
  const Random numbers = random_numbers(seed_, name);
  return filled(name, shape, role, [&] {
    return made(shape, sums(), [&](auto* element, uint64_t first, int64_t count) {
      write_normal(numbers, deviation, first, count, element);
    });
  });
}

Parameter ParameterFactory::uniform(const std::string& name, const Shape& shape, Role role,
                                    double low, double high, double (*map)(double)) const {
  const Random numbers = random_numbers(seed_, name);
  return filled(name, shape, role, [&] {
    return made(shape, sums(), [&](auto* element, uint64_t first, int64_t count) {
      using T = std::remove_pointer_t<decltype(element)>;
      for (int64_t i = 0; i < count; ++i) {
        const double u = numbers.uniform(first + static_cast<uint64_t>(i));
        element[i] = static_cast<T>(map(low + (high - low) * u));
      }
    });
  });
}

Parameter ParameterFactory::constant(const std::string& name, const Shape& shape, Role role,
                                     double value) const {
  return filled(name, shape, role, [&] { return Tensor::full(shape, value, DType::F64); });
}

}  // namespace regla
