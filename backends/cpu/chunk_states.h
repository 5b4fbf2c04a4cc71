#pragma once

#include <algorithm>
#include <cstdint>

#include "backends/cpu/streaming.h"
#include "backends/cpu/triangular.h"
#include "core/tensor.h"

// The states before the chunks of a head, for its backward pass. The forward pass keeps the state
// before each segment of chunks; those inside a segment are computed again. A segment has at least
// K V / (K + V) tokens, so what is kept takes no more room than the keys and values do, however
// small the chunk.
namespace regla::cpu {

/// Tokens per chunk: what was asked for, or what is fastest here; never more than there are.
inline int64_t chunk_size(int64_t asked, int64_t steps) {
  constexpr int64_t kFastest = 32;
  return std::min(asked > 0 ? asked : kFastest, steps);
}

/// How a head's chunks are grouped.
struct Segments {
  int64_t steps, capacity;  // tokens, tokens of a chunk; the last may have fewer
  int64_t chunks;           // per segment
  Segments(int64_t K, int64_t V, int64_t length, int64_t chunk)
      : steps(length),
        capacity(chunk),
        chunks(std::max<int64_t>(1, (K * V / (K + V) + chunk - 1) / chunk)) {}

  int64_t span() const { return chunks * capacity; }
  int64_t count() const { return (steps + span() - 1) / span(); }
};

/// Room for the states that a forward pass keeps, [heads, segments, K, V], where its inputs lie.
template <class T>
Tensor kept_states(const Segments& segments, int64_t heads, int64_t K, int64_t V, Device device) {
  return Tensor::empty({heads, segments.count(), K, V}, dtype_of<T>, device);
}

/// Keeps the state S before the chunk that starts at `begin` if a segment starts there. `kept`:
/// the head's part of the room, null when there is no backward pass. Call `streamed` after the
/// last.
template <class T>
void keep_state(const Segments& segments, int64_t begin, int64_t size, const T* S, T* kept) {
  if (kept == nullptr || begin % segments.span() != 0) return;
  stream(S, size, kept + begin / segments.span() * size);
}

template <class T>
class ChunkStates {
 public:
  static int64_t scratch(const Segments& segments, int64_t K, int64_t V) {
    return segments.chunks * K * V;
  }

  /// `kept`: the head's states before each segment; `last`: the state after the last.
  ChunkStates(const Segments& segments, int64_t K, int64_t V, const T* kept, const T* last,
              Arena<T>& arena)
      : segments_(segments),
        size_(K * V),
        kept_(kept),
        last_(last),
        inside_(arena.take(scratch(segments, K, V))) {}

  /// Calls `backward(begin, before, after)` for the chunk that starts at each `begin`, from the
  /// last to the first, with the states before and after it. `advance(begin, S)` moves S over a
  /// chunk.
  template <class Advance, class Backward>
  void run(Advance&& advance, Backward&& backward) {
    const int64_t capacity = segments_.capacity;
    const T* after = last_;
    for (int64_t segment = segments_.count() - 1; segment >= 0; --segment) {
      const int64_t start = segment * segments_.span();
      const int64_t stop = std::min(segments_.steps, start + segments_.span());
      const int64_t chunks = (stop - start + capacity - 1) / capacity;
      const T* first = kept_ + segment * size_;
      for (int64_t c = 1; c < chunks; ++c) {
        std::copy_n(c == 1 ? first : inside(c - 1), size_, inside(c));
        advance(start + (c - 1) * capacity, inside(c));
      }
      for (int64_t c = chunks - 1; c >= 0; --c) {
        const T* before = c == 0 ? first : inside(c);
        next_ = c == 0 && segment > 0 ? first - size_ : nullptr;
        backward(start + c * capacity, before, after);
        after = before;
      }
    }
  }

  /// While `backward` runs: the kept state that will be read next, null if none will.
  const T* next() const { return next_; }

 private:
  T* inside(int64_t c) const { return inside_ + c * size_; }

  Segments segments_;
  int64_t size_;
  const T *kept_, *last_, *next_ = nullptr;
  T* inside_;  // states before the chunks of the current segment, but the first
};

}  // namespace regla::cpu
