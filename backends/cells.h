#pragma once

#include <string_view>
#include <vector>

#include "backends/kernels.h"
#include "core/recurrences/cell.h"

// The kernels of recurrences that are known by their cell alone (core/recurrences/cell.h): they run
// it token by token. A backend makes them of any cell, in one line:
//
//     const bool added = cpu::add_cell<Bar>();     // in a .cpp, with backends/cpu/cells.h
//     const bool added = cuda::add_cell<Bar>();    // in a .cu, with backends/cuda/cells.cuh
//
// In the library these lines stand beside the tables of kernels, where a linker keeps them.
namespace regla {

/// What a cell reads, in the order of its Token. Decays are logs, and may be undefined (0).
struct CellArgs {
  std::vector<Tensor> keys;     // [B, T, H, K]
  std::vector<Tensor> values;   // [B, T, H, V]
  std::vector<Tensor> scalars;  // [B, T, H]
  Tensor reset;                 // [B, T] I32 or undefined: 1 empties the state before this token
  Tensor state;                 // [B, H, K, V] before the first token, or undefined (0)
  bool keep;                    // whether a backward pass follows
};
struct CellGradients {
  Tensor d_o, d_state;                            // in; d_state may be undefined
  std::vector<Sink> d_keys, d_values, d_scalars;  // out
  Sink d_state0;
};

/// The kernels of one cell on one backend. A decoded token is a sequence of one whose state before
/// and after it are the same tensor.
struct CellKernels {
  Kernel<"cell", "A A S I S A S -", void(const CellArgs&, RecurrenceResult&)> forward;
  Kernel<"cell_backward", "A A S I S A S - A S * * S S",
         void(const CellArgs&, const RecurrenceResult&, const CellGradients&)>
      backward;
};

/// What has been added for a cell.
template <class Cell>
struct AddedKernels {
  static inline constinit CellKernels cpu = {}, cuda = {};
};

/// A cell's kernels on a device; an Error when they are called where nobody added them.
template <class Cell>
const CellKernels& cell_kernels(Device device) {
  const bool is_cuda = std::string_view(kernels(device).backend) == "cuda";
  return is_cuda ? AddedKernels<Cell>::cuda : AddedKernels<Cell>::cpu;
}

/// The arguments of the library's recurrences as those of their cells.
inline CellArgs cell_args(const LinearAttentionArgs& args) {
  return {.keys = {args.q, args.k, args.log_a},
          .values = {args.u, args.log_b},
          .scalars = {args.log_s},
          .reset = args.reset,
          .state = args.state,
          .keep = args.keep};
}
inline CellArgs cell_args(const DeltaRuleArgs& args) {
  return {.keys = {args.q, args.k},
          .values = {args.v},
          .scalars = {args.g},
          .reset = args.reset,
          .state = args.state,
          .keep = args.keep};
}
inline CellGradients cell_gradients(const LinearAttentionGradients& to) {
  return {.d_o = to.d_o,
          .d_state = to.d_state,
          .d_keys = {to.d_q, to.d_k, to.d_log_a},
          .d_values = {to.d_u, to.d_log_b},
          .d_scalars = {to.d_log_s},
          .d_state0 = to.d_state0};
}
inline CellGradients cell_gradients(const DeltaRuleGradients& to) {
  return {.d_o = to.d_o,
          .d_state = to.d_state,
          .d_keys = {to.d_q, to.d_k},
          .d_values = {to.d_v},
          .d_scalars = {to.d_g},
          .d_state0 = to.d_state0};
}

}  // namespace regla
