#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace regla {

/// Counter-based random numbers: Philox 4x32-10 (Salmon et al. 2011). Number i of stream
/// (seed, stream) is a function of those three alone, so any thread may compute any of them and a
/// resumed run needs no saved generator.
class Random {
 public:
  Random(uint64_t seed, uint64_t stream) : seed_(seed), stream_(stream) {}

  /// Four independent 32-bit words.
  std::array<uint32_t, 4> words(uint64_t index) const {
    std::array<uint32_t, 4> c = {static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
                                 static_cast<uint32_t>(stream_),
                                 static_cast<uint32_t>(stream_ >> 32)};
    uint32_t k0 = static_cast<uint32_t>(seed_), k1 = static_cast<uint32_t>(seed_ >> 32);
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53} * c[0], p1 = uint64_t{0xCD9E8D57} * c[2];
      c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
           static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
      k0 += 0x9E3779B9;
      k1 += 0xBB67AE85;
    }
    return c;
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
