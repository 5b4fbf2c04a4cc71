#pragma once

#include <memory>
#include <utility>

#include "backends/backend.h"
#include "backends/cpu/cells.h"
#include "core/heap_memory.h"
#include "core/recurrences/delta_rule.h"
#include "core/recurrences/linear_attention.h"
#include "core/segment_source.h"

namespace regla::test {

/// A device that is the CPU but for its recurrences: these run token by token, by the cells that
/// the CPU decodes with.
inline Device cell_device() {
  static const Device device = [] {
    const Device cells = {Device::Kind::Walled, 1};
    static KernelTable table = kernels(Device{});
    table.linear_attention = +[](const LinearAttentionArgs& args, RecurrenceResult& result) {
      cpu::run_cell<recurrence::LinearAttention>(cell_args(args), result);
    };
    table.linear_attention_backward = +[](const LinearAttentionArgs& args,
                                          const RecurrenceResult& forward,
                                          const LinearAttentionGradients& to) {
      cpu::reverse_cell<recurrence::LinearAttention>(cell_args(args), forward, cell_gradients(to));
    };
    table.delta_rule = +[](const DeltaRuleArgs& args, RecurrenceResult& result) {
      cpu::run_cell<recurrence::DeltaRule>(cell_args(args), result);
    };
    table.delta_rule_backward = +[](const DeltaRuleArgs& args, const RecurrenceResult& forward,
                                    const DeltaRuleGradients& to) {
      cpu::reverse_cell<recurrence::DeltaRule>(cell_args(args), forward, cell_gradients(to));
    };
    static auto& segments = *new HostSegments;  // outlives every tensor
    install_backend(cells, {.memory = std::make_unique<HostMemory>(cells, segments),
                            .kernels = &table,
                            .make_replay = [] { return std::unique_ptr<Replay>(); }});
    return cells;
  }();
  return device;
}

}  // namespace regla::test
