// The analyses of a model whose memory nothing but kernels and Memory may touch.
#include "analyses/gate_history.h"
#include "analyses/score_analysis.h"
#include "tests/analyses/support.h"
#include "tests/catch.h"
#include "tests/support.h"
#include "tests/walled_device.h"
#include "text/byte_tokenizer.h"

namespace regla::test {
namespace {

void check_same(const std::vector<LayerGates>& a, const std::vector<LayerGates>& b) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    CHECK(a[i].gates.bins == b[i].gates.bins);
    CHECK(a[i].gates.sum == b[i].gates.sum);
    CHECK(a[i].gates.gradient == b[i].gates.gradient);
    CHECK(a[i].mean_log_decay == b[i].mean_log_decay);
  }
}

}  // namespace

TEST_CASE("gates behind the wall are the CPU's, before and after training") {
  const TokenStream text = some_tokens(200);
  const TextSample sample = sample_text(text, 256, 4, 8, true);
  const auto history = [&](Device device) {
    const TrainingConfig config = with_gates(tiny_config(2, 3), Gate::Refined, 1);
    const Model model = make_model(config, byte_tokenizer(), device);
    GateHistory gates = train_gates(model, text, sample);
    const GateHistory again = gates_of_run(model, sample);
    check_same(again.before, gates.before);
    check_same(again.after, gates.after);
    return gates;
  };
  const GateHistory cpu = history({}), walled = history(walled_device());
  check_same(walled.before, cpu.before);
  check_same(walled.after, cpu.after);
  CHECK(walled.loss == cpu.loss);
}

TEST_CASE("a gate's gradient behind the wall is the CPU's") {
  const Tensor z_g = normal_tensor({7}, DType::F64, 1), z_r = normal_tensor({7}, DType::F64, 2);
  const GateGradient cpu = gate_gradient(z_g, z_r, 2),
                     walled = gate_gradient(z_g.on(walled_device()), z_r.on(walled_device()), 2);
  CHECK(same_bits(walled.F, cpu.F));
  CHECK(same_bits(walled.d_z_g, cpu.d_z_g));
  CHECK(same_bits(walled.d_z_r, cpu.d_z_r));
}

TEST_CASE("inner products behind the wall are the CPU's") {
  const TextSample sample = sample_text(some_tokens(200), 256, 4, 8);
  const auto spreads = [&](Device device) {
    const Model model = make_model(tiny_config(2, 3), byte_tokenizer(), device);
    return text_scores(*model.decoder, sample.ids);
  };
  const std::vector<ScoreSpread> cpu = spreads({}), walled = spreads(walled_device());
  REQUIRE(walled.size() == cpu.size());
  for (size_t i = 0; i < cpu.size(); ++i) {
    CHECK(walled[i].identity == cpu[i].identity);
    CHECK(walled[i].exp == cpu[i].exp);
    CHECK(walled[i].safe_exp == cpu[i].safe_exp);
  }
}

}  // namespace regla::test
