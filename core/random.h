#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace regla {

/// Counter-based random numbers: Philox 4x32-10 (Salmon et al. 2011). Number i of stream
/// (seed, stream) is a function of those three alone, so any thread may compute any of them and a
/// resumed run needs no saved generator. Drawing is `constexpr`, so that a GPU can do it too.
class Random {
 public:
  constexpr Random(uint64_t seed, uint64_t stream) : seed_(seed), stream_(stream) {}

  /// Four independent 32-bit words.
  constexpr std::array<uint32_t, 4> words(uint64_t index) const {
    uint32_t w[4][1];
    draw(index, w);
    return {w[0][0], w[1][0], w[2][0], w[3][0]};
  }

  /// w[.][i] = words(first + i), side by side so that the loop over i vectorises.
  template <int N>
  constexpr void draw(uint64_t first, uint32_t (&w)[4][N]) const {
    for (int i = 0; i < N; ++i) {
      const uint64_t index = first + static_cast<uint64_t>(i);
      w[0][i] = static_cast<uint32_t>(index);
      w[1][i] = static_cast<uint32_t>(index >> 32);
      w[2][i] = static_cast<uint32_t>(stream_);
      w[3][i] = static_cast<uint32_t>(stream_ >> 32);
    }
    uint32_t k0 = static_cast<uint32_t>(seed_), k1 = static_cast<uint32_t>(seed_ >> 32);
    for (int round = 0; round < 10; ++round) {
      for (int i = 0; i < N; ++i) {
        const uint64_t p0 = uint64_t{0xD2511F53} * w[0][i], p1 = uint64_t{0xCD9E8D57} * w[2][i];
        w[0][i] = static_cast<uint32_t>(p1 >> 32) ^ w[1][i] ^ k0;
        w[1][i] = static_cast<uint32_t>(p1);
        w[2][i] = static_cast<uint32_t>(p0 >> 32) ^ w[3][i] ^ k1;
        w[3][i] = static_cast<uint32_t>(p0);
      }
      k0 += 0x9E3779B9;
      k1 += 0xBB67AE85;
    }
  }

  /// Uniform in [0, 1) with 53 bits.
  double uniform(uint64_t index) const {
    const auto w = words(index);
    return static_cast<double>((uint64_t{w[0]} << 21) ^ (w[1] >> 11)) * 0x1p-53;
  }

  /// Standard normal (Box-Muller).
  double normal(uint64_t index) const {
    const auto w = words(index);
    const double u = (static_cast<double>((uint64_t{w[0]} << 20) ^ (w[1] >> 12)) + 0.5) * 0x1p-52;
    const double v = static_cast<double>((uint64_t{w[2]} << 21) ^ (w[3] >> 11)) * 0x1p-53;
    return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v);
  }

 private:
  uint64_t seed_, stream_;
};

}  // namespace regla
