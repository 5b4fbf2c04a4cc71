#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace regla {

/// Where `reset_at_documents` clears the state: 1 at each `<|endoftext|>`, before which all is
/// forgotten, else 0.
std::vector<int32_t> document_resets(std::span<const int32_t> ids, int32_t end_of_text);

/// What one step trains on. Row-major [B, T].
struct Batch {
  int64_t batch = 0;   // B
  int64_t length = 0;  // T
  std::vector<int32_t> inputs;
  std::vector<int32_t> targets;  // the token behind each input
  std::vector<int32_t> reset;    // document_resets of the inputs
  bool first = false;            // segment 0: a state carried so far belongs to other text
};

/// Cuts a token stream into batches, the same ones in every run.
///
/// With N ids there are M = floor((N - 1) / (B T)) segments. Stream b of B owns the inputs
/// [b M T, (b + 1) M T), so the streams follow each other without a gap, and segment s of it is
/// inputs [b M T + s T, b M T + (s + 1) T). Its targets are the same range moved by one: the last
/// target of a stream is the first input of the next. Ids behind B M T + 1, fewer than B T of
/// them, are never used. Step n is segment n mod M: an epoch is M steps, each input once, and the
/// next epoch is the same again, beginning with `first`.
class Batches {
 public:
  /// `ids` must outlive this. Errors: batch or length below 1, fewer than B T + 1 ids.
  Batches(std::span<const int32_t> ids, int64_t batch, int64_t length, int32_t end_of_text);

  /// M, the number of steps in an epoch.
  int64_t segments() const { return segments_; }
  /// The batch of step >= 0, counted from the start of training.
  Batch at(int64_t step) const;

 private:
  std::span<const int32_t> ids_;
  int64_t batch_, length_, segments_;
  int32_t end_of_text_;
};

}  // namespace regla
