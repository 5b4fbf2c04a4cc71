#include <algorithm>

#include "backends/cpu/kernels.h"
#include "backends/cpu/loops.h"
#include "backends/cpu/vector_math.h"

// The gates: decays always as logs, log sigma(z) and log F of the refined gate, and sigma(z) itself
// for what is no decay.
//   F = (1-r) g^2 + r (1 - (1-g)^2) = g (g + 2r(1-g)),  g = sigma(z_g), r = sigma(z_r)   (Eq.
//   16-18)
namespace regla::cpu {
namespace {

template <class T>
constexpr T kLog2 = T(0.69314718055994530942);

/// log F without ever forming F, which would lose all digits near 1 and underflow near 0.
template <class T>
[[gnu::always_inline]] inline T log_refined_gate(T z_g, T z_r) {
  const T e = math::exp(z_g < 0 ? z_g : -z_g), g = (z_g < 0 ? e : T(1)) / (1 + e);
  // z_g >= 0:  F = 1 - (1-g)(1+g-2rg) = 1 - (1-g)((1-g) + 2g(1-r)),  1-g = e / (1+e)
  const T not_g = e / (1 + e), not_r = math::sigmoid(-z_r);
  const T near_one = math::log1p(-(z_g < 0 ? T(0) : not_g * (not_g + 2 * g * not_r)));
  // z_g < 0:   F = g (1-g) (g/(1-g) + 2r),  g/(1-g) = e^z_g
  const T x = z_g, y = kLog2<T> + math::log_sigmoid(z_r);
  const T sum = (x > y ? x : y) + math::log1p(math::exp(x > y ? y - x : x - y));
  const T near_zero = z_g - 2 * math::log1p(e) + sum;
  return z_g < 0 ? near_zero : near_one;
}

/// d log F / d z_g = (1-g)(1+w) - (1-w) g = (1-g)(2(1-r)w + 1-w)  and
/// d log F / d z_r = (1-w)(1-r), where w = g / (g + 2r(1-g)) is the share of g^2 in F, taken from
/// logs. Only sums of what is positive: nothing cancels as F approaches 1.
template <class T>
[[gnu::always_inline]] inline void refined_gate_slopes(T z_g, T z_r, T& d_z_g, T& d_z_r) {
  const T odds = (z_g - math::log_sigmoid(z_r)) - kLog2<T>;  // ln(w / (1-w))
  const T w = math::sigmoid(odds), not_w = math::sigmoid(-odds), not_r = math::sigmoid(-z_r);
  d_z_g = math::sigmoid(-z_g) * (2 * not_r * w + not_w);
  d_z_r = not_w * not_r;
}

}  // namespace

void sigmoid(const Tensor& z, Tensor y) {
  for_float_type(z.dtype(), "sigmoid", [&](auto tag) {
    using T = decltype(tag);
    const T* in = z.data<T>();
    Sink out{y};
    write<T>(out, [=](int64_t i) { return math::sigmoid(in[i]); });
  });
}

// From z, not from y: 1 - y has no digits left where y is near 1.
void sigmoid_backward(const Tensor& z, const Tensor& d_y, Sink d_z) {
  for_float_type(z.dtype(), "sigmoid", [&](auto tag) {
    using T = decltype(tag);
    const T *in = z.data<T>(), *d_out = d_y.data<T>();
    write<T>(d_z,
             [=](int64_t i) { return d_out[i] * (math::sigmoid(in[i]) * math::sigmoid(-in[i])); });
  });
}

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

void refined_gate_backward(const Tensor& z_g, const Tensor& z_r, const Tensor& d_log_f, Sink d_z_g,
                           Sink d_z_r) {
  for_float_type(z_g.dtype(), "refined_gate", [&](auto tag) {
    using T = decltype(tag);
    const T *zg = z_g.data<T>(), *zr = z_r.data<T>(), *d_out = d_log_f.data<T>();
    T* to_g = d_z_g ? d_z_g.tensor.data<T>() : nullptr;
    T* to_r = d_z_r ? d_z_r.tensor.data<T>() : nullptr;
    // Both slopes share most of their work: by pieces that stay in the first-level cache.
    constexpr int64_t kPiece = 512;
    parallel_for(z_g.numel(), kGrain, [&](int64_t begin, int64_t end) {
      T by_g[kPiece], by_r[kPiece];
      for (int64_t first = begin; first < end; first += kPiece) {
        const int64_t count = std::min(kPiece, end - first);
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) {
          refined_gate_slopes(zg[first + i], zr[first + i], by_g[i], by_r[i]);
        }
        const T* d = d_out + first;
        if (to_g) {
          write_range(to_g + first, d_z_g.accumulate, 0, count,
                      [&](int64_t i) { return d[i] * by_g[i]; });
        }
        if (to_r) {
          write_range(to_r + first, d_z_r.accumulate, 0, count,
                      [&](int64_t i) { return d[i] * by_r[i]; });
        }
      }
    });
  });
}

}  // namespace regla::cpu
