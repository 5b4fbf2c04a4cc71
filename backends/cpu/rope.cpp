#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "backends/cpu/elements.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/vector_math.h"

namespace regla::cpu {
namespace {

/// Sine and cosine of an angle in double: at position 10^5 a float angle has lost its last digits.
[[gnu::always_inline]] inline void sin_cos_of(double angle, double& sine, double& cosine) {
  math::sin_cos(angle, sine, cosine);
}
[[gnu::always_inline]] inline void sin_cos_of(double angle, float& sine, float& cosine) {
  // Less whole turns, which adding 1.5 * 2^52 rounds to, an angle fits a float.
  constexpr double kTurn = 2 * std::numbers::pi;
  const double turns = (angle / kTurn + 0x1.8p52) - 0x1.8p52;
  math::sin_cos(static_cast<float>(angle - turns * kTurn), sine, cosine);
}

/// Cosines and sines [half] each, once for every position where the tokens share few of them (the
/// sequences of a batch do), else for every token.
template <class T>
class Rotations {
 public:
  explicit Rotations(const RopeArgs& args)
      : positions_(args.rotation.positions.data<int32_t>()), half_(args.rotation.rotary / 2) {
    const int64_t tokens = args.rotation.positions.numel();
    if (tokens == 0) return;
    const auto [low, high] = std::minmax_element(positions_, positions_ + tokens);
    by_position_ = int64_t{*high} - *low < tokens;
    lowest_ = *low;
    const int64_t rows = by_position_ ? *high - lowest_ + 1 : tokens;
    table_ = Tensor::empty({rows, 2 * half_}, dtype_of<T>);
    const T direction = args.inverse ? -1 : 1;
    std::vector<double> frequencies;
    for (int64_t i = 0; i < half_; ++i) {
      const double exponent =
          -2 * static_cast<double>(i) / static_cast<double>(args.rotation.rotary);
      frequencies.push_back(std::pow(args.rotation.base, exponent));
    }
    parallel_for(rows, row_grain(16 * half_), [&](int64_t begin, int64_t end) {
      const double* frequency = frequencies.data();
      const int64_t half = half_;
      for (int64_t row = begin; row < end; ++row) {
        const auto position = static_cast<double>(by_position_ ? lowest_ + row : positions_[row]);
        T *cosines = table_.data<T>() + row * 2 * half, *sines = cosines + half;
#pragma omp simd
        for (int64_t i = 0; i < half; ++i) {
          sin_cos_of(position * frequency[i], sines[i], cosines[i]);
          sines[i] *= direction;
        }
      }
    });
  }

  const T* cosines(int64_t token) const {
    const int64_t row = by_position_ ? positions_[token] - lowest_ : token;
    return table_.data<T>() + row * 2 * half_;
  }
  const T* sines(int64_t token) const { return cosines(token) + half_; }

 private:
  const int32_t* positions_;
  int64_t half_, lowest_ = 0;
  bool by_position_ = false;
  Tensor table_;
};

}  // namespace

void rope(const RopeArgs& args, Sink y) {
  for_sums_of(args.x, "rope", [&](auto tag) {
    using T = decltype(tag);
    const int64_t H = args.x.dim(2), K = args.x.dim(3);
    const int64_t half = args.rotation.rotary / 2;
    const Input<T> x(args.x);
    const Output<T> out(y);
    const Rotations<T> rotations(args);
    parallel_for(args.x.dim(0) * args.x.dim(1), row_grain(H * K), [&](int64_t begin, int64_t end) {
      std::vector<T> room = x.room(K);
      for (int64_t token = begin; token < end; ++token) {
        const T *c = rotations.cosines(token), *s = rotations.sines(token);
        for (int64_t h = 0; h < H; ++h) {
          const int64_t first = (token * H + h) * K;
          const T* in = x.read(first, K, room);
          out.write(first, half, [=](int64_t i) { return in[i] * c[i] - in[half + i] * s[i]; });
          out.write(first + half, half,
                    [=](int64_t i) { return in[half + i] * c[i] + in[i] * s[i]; });
          out.write(first + 2 * half, K - 2 * half, [=](int64_t i) { return in[2 * half + i]; });
        }
      }
    });
  });
}

}  // namespace regla::cpu
