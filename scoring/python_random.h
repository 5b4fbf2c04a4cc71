#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace regla {

/// Python's `random.Random(seed)`, bit by bit: the Mersenne twister MT19937 (Matsumoto and
/// Nishimura 1998) and what the `random` module of Python 3.11 draws from it. Examples for few-shot
/// prompts and bootstrapped errors follow from it, so that both are those of other programs.
class PythonRandom {
 public:
  explicit PythonRandom(uint32_t seed);

  /// `getrandbits(32)`
  uint32_t word();
  /// `random()`, in [0, 1), of 53 bits.
  double real();
  /// `randrange(count)`, with count >= 1.
  int64_t below(int64_t count);
  /// `sample(range(population), count)`: different numbers in the order in which they are drawn. An
  /// Error for more than there are.
  std::vector<int64_t> sample(int64_t population, int64_t count);

 private:
  static constexpr size_t kWords = 624;
  void renew();

  std::array<uint32_t, kWords> state_;
  size_t next_ = kWords;
};

}  // namespace regla
