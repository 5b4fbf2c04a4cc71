#include <algorithm>

#include "backends/cpu/elements.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/vector_math.h"

// The gates: decays always as logs, log sigma(z) and log F of the refined gate, and sigma(z) itself
// for what is no decay.
//   F = (1-r) g^2 + r (1 - (1-g)^2) = g (g + 2r(1-g)),  g = sigma(z_g), r = sigma(z_r)
// (Eq. 16-18)
namespace regla::cpu {
namespace {

/// What log F and its slopes share, from exponentials of numbers that are at most 0. With
/// p = min(z_r, 0), r is e^p / (1 + b), and the two parts of F, g^2 and 2 r g (1-g), are to each
/// other as e^z_g and 2 e^p / (1 + b).
template <class T>
struct GateParts {
  T a, b;                    // e^-|z_g|, e^-|z_r|
  T not_r;                   // 1 - r
  T larger;                  // the larger of z_g and p
  T from_square, from_rest;  // the two parts, over e^larger

  [[gnu::always_inline]] GateParts(T z_g, T z_r) {
    const T p = z_r < 0 ? z_r : T(0);
    a = math::exp(z_g < 0 ? z_g : -z_g);
    b = math::exp(z_r < 0 ? z_r : -z_r);
    const T shrunk = 1 / (1 + b), c = math::exp(z_g < p ? z_g - p : p - z_g);
    not_r = (z_r < 0 ? T(1) : b) * shrunk;
    larger = z_g < p ? p : z_g;
    from_square = z_g < p ? c : T(1);
    from_rest = 2 * (z_g < p ? T(1) : c) * shrunk;
  }
};

/// log F without ever forming F, which would lose all digits near 1 and underflow near 0.
template <class T>
[[gnu::always_inline]] inline T log_refined_gate(T z_g, T z_r) {
  const GateParts<T> gate(z_g, z_r);
  const T a = gate.a, over = 1 / ((1 + a) * (1 + a));
  // z_g >= 0:  F = 1 - (1-g) ((1-g) + 2 g (1-r)) = 1 - a (a + 2 (1-r)) / (1+a)^2
  // z_g < 0:   F = e^z_g e^larger (the sum of the parts) / (1+a)^2
  const bool near_zero = z_g < 0;
  const T x = near_zero ? (gate.from_square + gate.from_rest) * over - 1
                        : -(a * (a + 2 * gate.not_r) * over);
  return (near_zero ? z_g + gate.larger : T(0)) + math::log1p(x);
}

/// d log F / d z_g = (1-g)(1+w) - (1-w) g = (1-g)(2(1-r)w + 1-w)  and
/// d log F / d z_r = (1-w)(1-r), where w is the share of g^2 in F. Only sums of what is positive:
/// nothing cancels as F approaches 1.
template <class T>
[[gnu::always_inline]] inline void refined_gate_slopes(T z_g, T z_r, T& d_z_g, T& d_z_r) {
  const GateParts<T> gate(z_g, z_r);
  const T over = 1 / (gate.from_square + gate.from_rest);
  const T w = gate.from_square * over, not_w = gate.from_rest * over;
  const T not_g = (z_g < 0 ? T(1) : gate.a) / (1 + gate.a);
  d_z_g = not_g * (2 * gate.not_r * w + not_w);
  d_z_r = not_w * gate.not_r;
}

}  // namespace

void sigmoid(const Tensor& z, Tensor y) {
  for_sums_of(z, "sigmoid", [&](auto tag) {
    using T = decltype(tag);
    map<T>(
        Sink{y}, [](T in) { return math::sigmoid(in); }, z);
  });
}

// From z, not from y: 1 - y has no digits left where y is near 1.
void sigmoid_backward(const Tensor& z, const Tensor& d_y, Sink d_z) {
  for_sums_of(z, "sigmoid", [&](auto tag) {
    using T = decltype(tag);
    map<T>(
        d_z, [](T in, T d) { return d * (math::sigmoid(in) * math::sigmoid(-in)); }, z, d_y);
  });
}

void log_sigmoid(const Tensor& z, Tensor y) {
  for_sums_of(z, "log_sigmoid", [&](auto tag) {
    using T = decltype(tag);
    map<T>(
        Sink{y}, [](T in) { return math::log_sigmoid(in); }, z);
  });
}

void log_sigmoid_backward(const Tensor& z, const Tensor& d_y, Sink d_z) {
  for_sums_of(z, "log_sigmoid", [&](auto tag) {
    using T = decltype(tag);
    map<T>(
        d_z, [](T in, T d) { return d * math::sigmoid(-in); }, z, d_y);
  });
}

void refined_gate(const Tensor& z_g, const Tensor& z_r, Tensor log_f) {
  for_sums_of(z_g, "refined_gate", [&](auto tag) {
    using T = decltype(tag);
    map<T>(
        Sink{log_f}, [](T g, T r) { return log_refined_gate(g, r); }, z_g, z_r);
  });
}

void refined_gate_backward(const Tensor& z_g, const Tensor& z_r, const Tensor& d_log_f,
                           const LinearSink& d_z_g, const LinearSink& d_z_r) {
  for_sums_of(z_g, "refined_gate", [&](auto tag) {
    using T = decltype(tag);
    const Input<T> g(z_g), r(z_r), d_out(d_log_f);
    const Output<T> to_g(d_z_g.rows.matrix), to_r(d_z_r.rows.matrix);
    // Both slopes share most of their work: by pieces that stay in the first-level cache.
    constexpr int64_t kSize = 512;
    parallel_for(z_g.numel(), kGrain, [&](int64_t begin, int64_t end) {
      T by_g[kSize], by_r[kSize], g_room[kSize], r_room[kSize];
      for (int64_t first = begin; first < end; first += kSize) {
        const int64_t count = std::min(kSize, end - first);
        const T *zg = g.read(first, count, g_room), *zr = r.read(first, count, r_room);
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) refined_gate_slopes(zg[i], zr[i], by_g[i], by_r[i]);
        const T* d = d_out.read(first, count, g_room);
        if (to_g) to_g.write(first, count, [&](int64_t i) { return d[i] * by_g[i]; });
        if (to_r) to_r.write(first, count, [&](int64_t i) { return d[i] * by_r[i]; });
      }
    });
  });
  for (const LinearSink* to : {&d_z_g, &d_z_r}) {
    if (to->sums) column_sums(to->rows.matrix.tensor, to->sums);
  }
}

}  // namespace regla::cpu
