#pragma once

#include <cstdint>

#include "backends/kernels.h"
#include "core/random.h"

namespace regla::cuda {

/// What dropout multiplies elements by.
template <class S>
struct DropoutMask {
  int64_t first;
  S scale;             // of what is kept
  uint32_t threshold;  // of words: what is below it is dropped
  uint64_t seed, place;
  const int32_t* step;  // or null

  explicit DropoutMask(const DropoutArgs& args)
      : first(args.first),
        scale(static_cast<S>(1 / (1 - args.rate))),
        threshold(static_cast<uint32_t>(args.rate * 0x1p32)),
        seed(args.seed),
        place(args.place),
        step(args.step ? args.step.data<int32_t>() : nullptr) {}

  /// The numbers of this mask.
  __device__ Random random() const {
    const auto number = static_cast<uint64_t>(step == nullptr ? 0 : *step);
    return Random(seed, number * 65536 + place);
  }

  /// Those of elements [i, i + W). Element i is number first + i, and number n takes word n mod 4
  /// of draw n / 4: with W = 4 first + i is a multiple of 4.
  template <int W>
  __device__ void draw(const Random& random, int64_t i, S (&factors)[W]) const {
    const auto n = static_cast<uint64_t>(first + i);
    uint32_t words[4][1];
    random.draw(n / 4, words);
#pragma unroll
    for (int w = 0; w < W; ++w) {
      const uint32_t word = W == 4 ? words[w][0] : words[n % 4][0];
      factors[w] = word >= threshold ? scale : S(0);
    }
  }
};

/// Whether elements stayed, a bit for each of the up to 32 of a row that a thread has, in the order
/// in which it loads them: what backward reads instead of drawing again.
struct KeptElements {
  uint32_t bits = 0;

  /// Loads number `load` by W elements.
  template <int W>
  __device__ void add(int load, const float (&factors)[W]) {
#pragma unroll
    for (int w = 0; w < W; ++w) bits |= (factors[w] != 0 ? 1U : 0U) << (load * W + w);
  }
  template <int W>
  __device__ bool has(int load, int w) const {
    return (bits >> (load * W + w) & 1) != 0;
  }
};

}  // namespace regla::cuda
