#pragma once

#include "autograd/ops/op.h"
#include "backends/cells.h"

// Recurrences of which a backend knows no more than the cell (core/recurrences/cell.h).
namespace regla {

/// What a cell reads of q, k, ... in the order of its Token: keys [B, T, H, K], values [B, T, H,
/// V], scalars [B, T, H]. Decays are logs, and may be undefined (0). Scalars are of the type of
/// sums.
struct CellInputs {
  Vars keys, values, scalars;
};

/// How many of each a cell reads, and what it is called.
struct CellTraits {
  const char* name;
  recurrence::Count keys, values, scalars;
};
template <class Cell>
constexpr CellTraits cell_traits() {
  return {Cell::kName, Cell::kKeys, Cell::kValues, Cell::kScalars};
}

/// The recurrence of a cell whose kernels are given. See below.
Recurrence run_cell(const CellTraits& cell, const CellKernels& kernels, const CellInputs& inputs,
                    const Tensor& reset, const Var& state);
Tensor run_cell_step(const CellTraits& cell, const CellKernels& kernels, const CellInputs& inputs,
                     Tensor state);

/// The recurrence of a cell, token by token, from `state` [B, H, K, V] (undefined: 0). reset [B, T]
/// I32 or undefined: 1 empties the state before that token.
template <class Cell>
Recurrence run_cell(const CellInputs& inputs, const Tensor& reset, const Var& state) {
  const Device device = inputs.values.at(0).value.device();
  return run_cell(cell_traits<Cell>(), cell_kernels<Cell>(device), inputs, reset, state);
}
/// One token (T = 1) for decoding, without gradients: `state` is updated in place.
template <class Cell>
Tensor run_cell_step(const CellInputs& inputs, Tensor state) {
  const CellKernels& kernels = cell_kernels<Cell>(state.device());
  return run_cell_step(cell_traits<Cell>(), kernels, inputs, std::move(state));
}

}  // namespace regla
