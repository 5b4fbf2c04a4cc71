#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "layers/mixer.h"

namespace regla {

/// What a decoder remembers of the tokens before: a mixer's state per layer and one clock. Without
/// layers it stands for "absent". The batch is the outermost axis of every tensor.
struct DecoderState {
  std::vector<MixerState> layers;
  Tensor position;  // [B] I32: of the next token

  bool empty() const { return layers.empty(); }

  /// Calls `f(name, tensor)` for every tensor, to save it: those of a mixer as `<layer>.<name>`,
  /// then `position`.
  void for_each(const std::function<void(const std::string&, Tensor&)>& f);
  /// An Error, which begins with `where`, for values that no `tokens` tokens leave behind.
  void check_values(const std::string& where, int64_t tokens) const;
  /// The same values cut off from the tape: truncated back-propagation.
  DecoderState detached() const;
  DecoderState clone() const;
  /// Sequences [begin, end) of the batch, sharing memory.
  DecoderState rows(int64_t begin, int64_t end) const;
  /// The sequences of several states, one after the other, in memory of their own, with room in
  /// caches for a segment of `room` tokens. A state may be named several times.
  static DecoderState joined(std::vector<DecoderState> parts, int64_t room = 0);
  /// Bytes of memory that the mixers' tensors take, room for later tokens included.
  int64_t bytes() const;
  /// Copies the values of a state with tensors of the same names and shapes.
  void copy_from(const DecoderState& other);
  /// The same as a state without tokens, in place, where flag [1] I32 is 1.
  void restart(const Tensor& flag);
  /// Copies the values of a state with the same tensors where factor [1] F64 is not 0.
  void commit(const Tensor& factor, const DecoderState& other);
  /// Counts steps that were done on this state's memory without Decoder::step (steps_ahead).
  void advance(int64_t steps);

 private:
  /// Calls `f` with every tensor and the one of the same name of `other`.
  void with_those_of(const DecoderState& other,
                     const std::function<void(Tensor&, const Tensor&)>& f);
};

}  // namespace regla
