#include "backends/cpu/kernels.h"
#include "backends/cpu/loops.h"
#include "backends/cpu/vector_math.h"

// The gates, always as logs: log sigma(z) and log F of the refined gate.
//   F = (1-r) g^2 + r (1 - (1-g)^2) = g (g + 2r(1-g)),  g = sigma(z_g), r = sigma(z_r)   (Eq.
//   16-18)
namespace regla::cpu {
namespace {

/// ln(e^x + e^y)
template <class T>
T log_add_exp(T x, T y) {
  const T largest = x > y ? x : y, difference = x > y ? y - x : x - y;
  return largest + math::log1p(math::exp(difference));
}

/// log F without ever forming F, which would lose all digits near 1 and underflow near 0.
template <class T>
T log_refined_gate(T z_g, T z_r) {
  const T g = math::sigmoid(z_g), not_g = math::sigmoid(-z_g), r = math::sigmoid(z_r);
  // z_g >= 0:  F = 1 - (1-g)(1+g-2rg)
  const T near_one = math::log1p(-(z_g >= 0 ? not_g * (1 + g - 2 * r * g) : T(0)));
  // z_g < 0:   F = g (g + 2r(1-g))
  const T log_g = math::log_sigmoid(z_g);
  const T log_two = T(0.69314718055994530942);
  const T near_zero =
      log_g + log_add_exp(log_g, log_two + math::log_sigmoid(z_r) + math::log_sigmoid(-z_g));
  return z_g >= 0 ? near_one : near_zero;
}

/// w = g / (g + 2r(1-g)), the share of g^2 in F, again from logs.
template <class T>
T share_of_square(T z_g, T z_r) {
  const T log_two = T(0.69314718055994530942);
  return math::sigmoid(math::log_sigmoid(z_g) - log_two - math::log_sigmoid(z_r) -
                       math::log_sigmoid(-z_g));
}

}  // namespace

void log_sigmoid(const Tensor& z, Tensor y) {
  for_float_type(z.dtype(), "log_sigmoid", [&](auto tag) {
    using T = decltype(tag);
    const T* in = z.data<T>();
    Sink out{y};
    write<T>(out, [=](int64_t i) { return math::log_sigmoid(in[i]); });
  });
}

void log_sigmoid_backward(const Tensor& z, const Tensor& d_y, Sink d_z) {
  for_float_type(z.dtype(), "log_sigmoid", [&](auto tag) {
    using T = decltype(tag);
    const T *in = z.data<T>(), *d_out = d_y.data<T>();
    write<T>(d_z, [=](int64_t i) { return d_out[i] * math::sigmoid(-in[i]); });
  });
}

void refined_gate(const Tensor& z_g, const Tensor& z_r, Tensor log_f) {
  for_float_type(z_g.dtype(), "refined_gate", [&](auto tag) {
    using T = decltype(tag);
    const T *g = z_g.data<T>(), *r = z_r.data<T>();
    Sink out{log_f};
    write<T>(out, [=](int64_t i) { return log_refined_gate(g[i], r[i]); });
  });
}

// d log F / d z_g = (1-g)(1+w) - (1-w) g,   d log F / d z_r = (1-w)(1-r)
void refined_gate_backward(const Tensor& z_g, const Tensor& z_r, const Tensor& d_log_f, Sink d_z_g,
                           Sink d_z_r) {
  for_float_type(z_g.dtype(), "refined_gate", [&](auto tag) {
    using T = decltype(tag);
    const T *zg = z_g.data<T>(), *zr = z_r.data<T>(), *d_out = d_log_f.data<T>();
    write<T>(d_z_g, [=](int64_t i) {
      const T w = share_of_square(zg[i], zr[i]);
      return d_out[i] * (math::sigmoid(-zg[i]) * (1 + w) - (1 - w) * math::sigmoid(zg[i]));
    });
    write<T>(d_z_r, [=](int64_t i) {
      const T w = share_of_square(zg[i], zr[i]);
      return d_out[i] * (1 - w) * math::sigmoid(-zr[i]);
    });
  });
}

}  // namespace regla::cpu
