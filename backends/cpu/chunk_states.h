#pragma once

#include <algorithm>
#include <cstdint>

#include "backends/cpu/triangular.h"

namespace regla::cpu {

/// Tokens per chunk: what was asked for, or what is fastest here; never more than there are.
inline int64_t chunk_size(int64_t asked, int64_t steps) {
  constexpr int64_t kFastest = 64;
  return std::min(asked > 0 ? asked : kFastest, steps);
}

/// The states before the chunks of a head, for its backward pass. They are kept for one segment of
/// chunks at a time and recomputed from the segment's first state: a segment has about K tokens, so
/// that all the states kept take about as much room as the values do, however small the chunk.
template <class T>
class ChunkStates {
 public:
  static int64_t scratch(int64_t K, int64_t V, int64_t steps, int64_t capacity) {
    const int64_t chunks = chunks_per_segment(K, capacity);
    return (steps / (chunks * capacity) + 2 + chunks) * K * V;
  }

  /// `capacity`: tokens of a chunk; the last may have fewer.
  ChunkStates(int64_t K, int64_t V, int64_t steps, int64_t capacity, Arena<T>& arena)
      : size_(K * V),
        steps_(steps),
        capacity_(capacity),
        chunks_(chunks_per_segment(K, capacity)),
        inside_(arena.take(chunks_ * size_)),
        firsts_(arena.take((segments() + 1) * size_)) {}

  /// Calls `backward(begin, before, after)` for the chunk that starts at each `begin`, from the
  /// last to the first, with the states before and after it. `advance(begin, S)` moves S over a
  /// chunk; `initial` null stands for 0.
  template <class Advance, class Backward>
  void run(const T* initial, Advance&& advance, Backward&& backward) {
    keep_first_states(initial, advance);
    for (int64_t segment = segments() - 1; segment >= 0; --segment) {
      const int64_t start = segment * span(), stop = std::min(steps_, start + span());
      const int64_t chunks = (stop - start + capacity_ - 1) / capacity_;
      for (int64_t c = 1; c < chunks; ++c) {
        std::copy_n(before(segment, c - 1), size_, before(segment, c));
        advance(start + (c - 1) * capacity_, before(segment, c));
      }
      const T* after = before(segment + 1, 0);
      for (int64_t c = chunks - 1; c >= 0; --c) {
        backward(start + c * capacity_, static_cast<const T*>(before(segment, c)), after);
        after = before(segment, c);
      }
    }
  }

 private:
  static int64_t chunks_per_segment(int64_t K, int64_t capacity) {
    return std::max<int64_t>(1, K / capacity);
  }
  int64_t span() const { return chunks_ * capacity_; }
  int64_t segments() const { return (steps_ + span() - 1) / span(); }

  /// The state before chunk c of a segment.
  T* before(int64_t segment, int64_t c) const {
    return c == 0 ? firsts_ + segment * size_ : inside_ + c * size_;
  }

  /// The states before each segment, and the one after the last.
  template <class Advance>
  void keep_first_states(const T* initial, Advance&& advance) {
    if (initial != nullptr) {
      std::copy_n(initial, size_, firsts_);
    } else {
      std::fill_n(firsts_, size_, T(0));
    }
    for (int64_t begin = 0; begin < steps_; begin += capacity_) {
      T* S = before(begin / span() + 1, 0);
      if (begin % span() == 0) std::copy_n(S - size_, size_, S);
      advance(begin, S);
    }
  }

  int64_t size_, steps_;
  int64_t capacity_, chunks_;  // tokens per chunk, chunks per segment
  T* inside_;                  // states before the chunks of the current segment
  T* firsts_;                  // state before each segment, and after the last
};

}  // namespace regla::cpu
