#include <cmath>
#include <vector>

#include "backends/cpu/kernels.h"
#include "backends/cpu/loops.h"

namespace regla::cpu {

void rope(const RopeArgs& args, Sink y) {
  for_float_type(args.x.dtype(), "rope", [&](auto tag) {
    using T = decltype(tag);
    const int64_t H = args.x.dim(2), K = args.x.dim(3), half = args.rotary / 2;
    const T* x = args.x.data<T>();
    const int32_t* positions = args.positions.data<int32_t>();
    T* out = y.tensor.data<T>();
    std::vector<double> frequency(static_cast<size_t>(half));
    for (int64_t i = 0; i < half; ++i) {
      frequency[static_cast<size_t>(i)] =
          std::pow(args.base, -2.0 * static_cast<double>(i) / static_cast<double>(args.rotary));
    }
    const double direction = args.inverse ? -1 : 1;
    parallel_for(args.x.dim(0) * args.x.dim(1), row_grain(H * K), [&](int64_t begin, int64_t end) {
      std::vector<T> cosines(static_cast<size_t>(half)), sines(static_cast<size_t>(half));
      for (int64_t token = begin; token < end; ++token) {
        for (int64_t i = 0; i < half; ++i) {
          // In double: at position 10^5 a float angle has lost its last digits.
          const double angle = positions[token] * frequency[static_cast<size_t>(i)];
          cosines[static_cast<size_t>(i)] = static_cast<T>(std::cos(angle));
          sines[static_cast<size_t>(i)] = static_cast<T>(direction * std::sin(angle));
        }
        const T *c = cosines.data(), *s = sines.data();
        for (int64_t h = 0; h < H; ++h) {
          const T* in = x + (token * H + h) * K;
          T* row = out + (token * H + h) * K;
          write_range(row, y.accumulate, 0, half,
                      [=](int64_t i) { return in[i] * c[i] - in[half + i] * s[i]; });
          write_range(row + half, y.accumulate, 0, half,
                      [=](int64_t i) { return in[half + i] * c[i] + in[i] * s[i]; });
          write_range(row, y.accumulate, 2 * half, K, [=](int64_t i) { return in[i]; });
        }
      }
    });
  });
}

}  // namespace regla::cpu
