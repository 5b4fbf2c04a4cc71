#include "scoring/python_random.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <set>

#include "core/check.h"

namespace regla {
namespace {

constexpr size_t kShift = 397;  // m of MT19937

/// The two multiplicative generators that spread a seed over the state.
constexpr uint32_t spread(uint32_t word, uint32_t before, uint32_t factor) {
  return word ^ ((before ^ (before >> 30)) * factor);
}

/// Up to how many elements Python copies the population instead of remembering what it drew:
/// 21 + 4^ceil(log4(3 count)), the size of the set that would be needed.
int64_t copied_up_to(int64_t count) {
  int64_t size = 21;
  if (count <= 5) return size;
  int64_t power = 1;
  while (power < 3 * count) power *= 4;
  return size + power;
}

}  // namespace

// init_by_array of the authors' program with the seed as its only key.
PythonRandom::PythonRandom(uint32_t seed) {
  state_[0] = 19650218;
  for (uint32_t i = 1; i < kWords; ++i) {
    state_[i] = 1812433253 * (state_[i - 1] ^ (state_[i - 1] >> 30)) + i;
  }
  size_t i = 1;
  const auto step = [&] {
    if (++i < kWords) return;
    state_[0] = state_[kWords - 1];
    i = 1;
  };
  for (size_t k = 0; k < kWords; ++k, step()) {
    state_[i] = spread(state_[i], state_[i - 1], 1664525) + seed;
  }
  for (size_t k = 1; k < kWords; ++k, step()) {
    state_[i] = spread(state_[i], state_[i - 1], 1566083941) - static_cast<uint32_t>(i);
  }
  state_[0] = 0x80000000;
}

void PythonRandom::renew() {
  for (size_t i = 0; i < kWords; ++i) {
    const uint32_t joined = (state_[i] & 0x80000000) | (state_[(i + 1) % kWords] & 0x7fffffff);
    const uint32_t twist = (joined & 1) != 0 ? 0x9908b0df : 0;
    state_[i] = state_[(i + kShift) % kWords] ^ (joined >> 1) ^ twist;
  }
  next_ = 0;
}

uint32_t PythonRandom::word() {
  if (next_ == kWords) renew();
  uint32_t y = state_[next_++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680;
  y ^= (y << 15) & 0xefc60000;
  return y ^ (y >> 18);
}

double PythonRandom::real() {
  const uint32_t high = word() >> 5, low = word() >> 6;
  return (high * 67108864.0 + low) * 0x1p-53;
}

int64_t PythonRandom::below(int64_t count) {
  check(count >= 1 && count <= int64_t{1} << 31, "[random] expected to draw below 1 to 2^31, got ",
        count);
  const auto limit = static_cast<uint32_t>(count);
  const int unused = 32 - static_cast<int>(std::bit_width(limit));
  uint32_t drawn = word() >> unused;
  while (drawn >= limit) drawn = word() >> unused;
  return drawn;
}

std::vector<int64_t> PythonRandom::sample(int64_t population, int64_t count) {
  check(count >= 0 && count <= population, "[random] expected to draw at most ", population,
        " elements, got ", count);
  std::vector<int64_t> drawn;
  if (population <= copied_up_to(count)) {
    std::vector<int64_t> pool(static_cast<size_t>(population));
    std::iota(pool.begin(), pool.end(), 0);
    for (int64_t left = population; left > population - count; --left) {
      int64_t& chosen = pool[static_cast<size_t>(below(left))];
      drawn.push_back(chosen);
      chosen = pool[static_cast<size_t>(left - 1)];
    }
    return drawn;
  }
  std::set<int64_t> seen;
  while (static_cast<int64_t>(drawn.size()) < count) {
    const int64_t index = below(population);
    if (seen.insert(index).second) drawn.push_back(index);
  }
  return drawn;
}

}  // namespace regla
