#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor.h"
#include "text/batches.h"

namespace regla {

/// Tokens of some sequences, [B, T] I32.
struct BatchTensors {
  Tensor ids, targets;
  Tensor reset;  // undefined: nothing is forgotten on the way

  /// Rows [begin, end), sharing memory.
  BatchTensors rows(int64_t begin, int64_t end) const;
};

/// The numbers of an update that the text does not give.
struct UpdateNumbers {
  int64_t step;               // updates before this one
  int64_t report_row;         // where what it did goes
  std::vector<double> rates;  // of AdamWArgs
};

/// Everything that is new in an update, in one block that is copied to the device at once. Its
/// tensors stay where they are.
class StagedUpdate {
 public:
  /// For batches of `batch` sequences of `length` tokens.
  StagedUpdate(int64_t batch, int64_t length, bool with_reset, Device device);

  /// Brings an update to the device, behind what that was asked for before.
  void write(const Batch& batch, const UpdateNumbers& numbers);

  const BatchTensors& tokens() const { return there_.tokens; }
  const Tensor& rates() const { return there_.rates; }                ///< [3] F64
  const Tensor& step() const { return there_.step; }                  ///< [1] I32
  const Tensor& begins_epoch() const { return there_.begins_epoch; }  ///< [1] I32: 0 or 1
  const Tensor& report_row() const { return there_.report_row; }      ///< [1] I32

 private:
  struct Pieces {
    Tensor block, rates, step, begins_epoch, report_row;
    BatchTensors tokens;
  };
  static Pieces pieces_of(const Tensor& block, int64_t batch, int64_t length, bool with_reset);

  Pieces on_host_, there_;
};

}  // namespace regla
