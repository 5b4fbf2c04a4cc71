// Kernels of the CPU that read and write BF16 themselves compute what the shell around them does:
// from widened numbers, in F32, rounded once.

#include "backends/backend.h"
#include "backends/cpu/bfloat16_shell.h"
#include "core/heap_memory.h"
#include "core/segment_source.h"
#include "tests/all_ops.h"
#include "tests/bfloat16.h"

namespace regla::test {
namespace {

/// From a rounded o the gradients of decays are not taken: it is computed again.
void backward_of_rounded(const LinearAttentionArgs& args, const RecurrenceResult& forward,
                         const LinearAttentionGradients& to) {
  cpu::linear_attention_backward(args, {.o = {}, .state = forward.state, .kept = forward.kept}, to);
}

/// A table in which BF16 goes through the shell around every kernel that computes between products.
const KernelTable& shell_table() {
  static KernelTable table = cpu::kTable;
  table.accumulate = cpu::any_precision<cpu::accumulate>;
  table.add = cpu::any_precision<cpu::add>;
  table.scale_by = cpu::any_precision<cpu::scale_by>;
  table.column_sums = cpu::any_precision<cpu::column_sums>;
  table.norm = cpu::any_precision<cpu::norm>;
  table.norm_backward = cpu::any_precision<cpu::norm_backward>;
  table.gelu = cpu::any_precision<cpu::gelu>;
  table.gelu_backward = cpu::any_precision<cpu::gelu_backward>;
  table.rope = cpu::any_precision<cpu::rope>;
  table.dropout = cpu::any_precision<cpu::dropout>;
  table.sigmoid = cpu::any_precision<cpu::sigmoid>;
  table.sigmoid_backward = cpu::any_precision<cpu::sigmoid_backward>;
  table.log_sigmoid = cpu::any_precision<cpu::log_sigmoid>;
  table.log_sigmoid_backward = cpu::any_precision<cpu::log_sigmoid_backward>;
  table.refined_gate = cpu::any_precision<cpu::refined_gate>;
  table.refined_gate_backward = cpu::any_precision<cpu::refined_gate_backward>;
  table.relu = cpu::any_precision<cpu::relu>;
  table.relu_backward = cpu::any_precision<cpu::relu_backward>;
  table.elu_plus_one = cpu::any_precision<cpu::elu_plus_one>;
  table.elu_plus_one_backward = cpu::any_precision<cpu::elu_plus_one_backward>;
  table.write_gate = cpu::any_precision<cpu::write_gate>;
  table.write_gate_backward = cpu::any_precision<cpu::write_gate_backward>;
  table.swish_gate = cpu::any_precision<cpu::swish_gate>;
  table.swish_gate_backward = cpu::any_precision<cpu::swish_gate_backward>;
  table.safe_exp = cpu::any_precision<cpu::safe_exp>;
  table.safe_exp_backward = cpu::any_precision<cpu::safe_exp_backward>;
  table.softmax_attention = cpu::any_precision<cpu::softmax_attention>;
  table.softmax_attention_backward = cpu::any_precision<cpu::softmax_attention_backward>;
  table.softmax_attention_step = cpu::any_precision<cpu::softmax_attention_step>;
  table.linear_attention = cpu::any_precision<cpu::linear_attention>;
  table.linear_attention_backward = cpu::any_precision<backward_of_rounded>;
  table.linear_attention_step = cpu::any_precision<cpu::linear_attention_step>;
  table.delta_rule = cpu::any_precision<cpu::delta_rule>;
  table.delta_rule_backward = cpu::any_precision<cpu::delta_rule_backward>;
  table.delta_rule_step = cpu::any_precision<cpu::delta_rule_step>;
  return table;
}

class Again : public Replay {
 public:
  void run(const std::function<void()>& work) override { work(); }
};

/// Memory of the host whose kernels are those.
Device shell_device() {
  static const Device device = [] {
    const Device shell = {Device::Kind::Walled, 1};
    auto& segments = *new HostSegments;  // outlives every tensor
    install_backend(shell, {.memory = std::make_unique<HostMemory>(shell, segments),
                            .kernels = &shell_table(),
                            .make_replay = [] { return std::make_unique<Again>(); }});
    return shell;
  }();
  return device;
}

/// Numbers that are BF16 here and F32 in the shell are added up: an element of safe exp's gradient
/// grows more than once, and a bias below GELU has the sum of what GELU's gradient wrote.
bool adds_rounded(const OpSample& sample, size_t gradient) {
  return sample.op == "safe_exp" || (sample.op == "gelu" && gradient == 2);
}

}  // namespace

TEST_CASE("kernels in BF16 have the bits of the shell around those in F32") {
  for (const auto& list : {all_ops(), large_ops()}) {
    for (const OpSample& sample : list) {
      INFO(sample.name());
      const Result found = run(sample, sample.make(DType::BF16), 800);
      const Result wanted = run(sample, sample.make(DType::BF16, shell_device()), 800);
      for (size_t i = 0; i < found.outputs.size(); ++i) {
        INFO("output " << i);
        CHECK(same_bits(found.outputs[i], wanted.outputs[i]));
      }
      for (size_t i = 0; i < found.gradients.size(); ++i) {
        INFO("gradient " << i);
        if (adds_rounded(sample, i) && found.gradients[i]) {
          check_rounded(found.gradients[i], wanted.gradients[i], 5e-3);
        } else {
          CHECK(same_bits(found.gradients[i], wanted.gradients[i]));
        }
      }
    }
  }
}

}  // namespace regla::test
