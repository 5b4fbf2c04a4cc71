#include "storage/sha256.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace regla {
namespace {

using State = std::array<uint32_t, 8>;

/// The k-th prime number, from 0 on.
int prime(int k) {
  for (int n = 2;; ++n) {
    bool divides = false;
    for (int d = 2; d * d <= n; ++d) divides = divides || n % d == 0;
    if (!divides && k-- == 0) return n;
  }
}

/// The first 32 bits of a fraction.
uint32_t fraction_bits(long double value) {
  return static_cast<uint32_t>((value - std::floor(value)) * 0x1p32L);
}

struct Constants {
  State start;                      // of the square roots of the first 8 primes
  std::array<uint32_t, 64> rounds;  // of the cube roots of the first 64
  Constants() {
    for (int k = 0; k < 64; ++k) {
      const auto p = static_cast<long double>(prime(k));
      rounds[static_cast<size_t>(k)] = fraction_bits(std::cbrt(p));
      if (k < 8) start[static_cast<size_t>(k)] = fraction_bits(std::sqrt(p));
    }
  }
};

const Constants& constants() {
  static const Constants all;
  return all;
}

/// 64 bytes more.
void add_block(const unsigned char* block, State& state) {
  std::array<uint32_t, 64> w;
  for (size_t t = 0; t < 16; ++t) {
    w[t] = 0;
    for (size_t i = 0; i < 4; ++i) w[t] = (w[t] << 8) | block[4 * t + i];
  }
  for (size_t t = 16; t < 64; ++t) {
    const uint32_t a = w[t - 15], b = w[t - 2];
    w[t] = w[t - 16] + w[t - 7] + (std::rotr(a, 7) ^ std::rotr(a, 18) ^ (a >> 3)) +
           (std::rotr(b, 17) ^ std::rotr(b, 19) ^ (b >> 10));
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (size_t t = 0; t < 64; ++t) {
    const uint32_t first = h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) +
                           ((e & f) ^ (~e & g)) + constants().rounds[t] + w[t];
    const uint32_t second =
        (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g;
    g = f;
    f = e;
    e = d + first;
    d = c;
    c = b;
    b = a;
    a = first + second;
  }
  const State sums = {a, b, c, d, e, f, g, h};
  for (size_t i = 0; i < sums.size(); ++i) state[i] += sums[i];
}

}  // namespace

std::string sha256(std::string_view bytes) {
  State state = constants().start;
  const auto* data = reinterpret_cast<const unsigned char*>(bytes.data());
  size_t at = 0;
  for (; at + 64 <= bytes.size(); at += 64) add_block(data + at, state);
  // The rest, a one, zeros, and the number of bits in the last eight bytes.
  std::string rest(bytes.substr(at));
  rest.push_back('\x80');
  rest.resize(rest.size() <= 56 ? 56 : 120, '\0');
  for (int shift = 56; shift >= 0; shift -= 8) {
    rest.push_back(static_cast<char>((static_cast<uint64_t>(bytes.size()) * 8) >> shift));
  }
  data = reinterpret_cast<const unsigned char*>(rest.data());
  for (size_t i = 0; i < rest.size(); i += 64) add_block(data + i, state);
  std::string digits;
  for (const uint32_t word : state) {
    for (int shift = 28; shift >= 0; shift -= 4) {
      digits.push_back("0123456789abcdef"[(word >> shift) & 15]);
    }
  }
  return digits;
}

}  // namespace regla
