// Benchmarks of the recurrences and of softmax attention.

#include <algorithm>
#include <cmath>

#include "app/bench/cases.h"
#include "app/bench/op_case.h"
#include "autograd/ops.h"

namespace regla::app {
namespace {

/// Linear attention with the decays that are there.
OpCase linear_attention_case(const std::string& name, const Tensors& qku, const Tensor& key,
                             const Tensor& value, const Tensor& scalar) {
  OpCase op = {.name = name, .work = {}, .types = "AAA", .inputs = qku, .f = {}, .reference = {}};
  for (const Tensor& decay : {key, value, scalar}) {
    if (!decay) continue;
    op.inputs.push_back(decay);
    op.types += decay.rank() == 4 ? 'A' : 'S';
    ++op.decays;
  }
  const bool has_key = key.defined(), has_value = value.defined(), has_scalar = scalar.defined();
  const auto form = [=](int64_t chunk) {
    return [=](const Vars& in) {
      size_t next = 3;
      LogDecays decays;
      if (has_key) decays.key = in[next++];
      if (has_value) decays.value = in[next++];
      if (has_scalar) decays.scalar = in[next++];
      return linear_attention(in[0], in[1], in[2], decays, {}, {}, chunk).o;
    };
  };
  op.f = form(0);
  op.reference = form(1);
  return op;
}

OpCase delta_rule_case(const Shape& shape, const Shape& rows) {
  // Keys of at most unit length, for which the delta rule is stable.
  const auto unit = [&](uint64_t stream) { return softmax(random_values(shape, stream)).value; };
  const auto form = [](int64_t chunk) {
    return
        [chunk](const Vars& in) { return delta_rule(in[0], in[1], in[2], in[3], {}, {}, chunk).o; };
  };
  return {
      .name = "delta_rule",
      .work = {},
      .types = "AAAS",
      .inputs = {unit(1), unit(2), random_values(shape, 3), sigmoid(random_values(rows, 4)).value},
      .f = form(0),
      .reference = form(1)};
}

OpCase softmax_attention_case(const Shape& shape) {
  const double scale = 1 / std::sqrt(static_cast<double>(shape[3]));
  return {.name = "softmax_attention",
          .work = {},
          .types = "AAA",
          .inputs = {random_values(shape, 1), random_values(shape, 2), random_values(shape, 3)},
          .f = [=](const Vars& in) { return softmax_attention(in[0], in[1], in[2], {}, 0, scale); },
          .reference = {}};
}

}  // namespace

std::vector<OpCase> recurrence_cases(const RecurrenceSizes& sizes) {
  const auto& [batch, length, heads, head] = sizes;
  const Shape shape = {batch, length, heads, head}, rows = {batch, length, heads};
  const auto positive = [](float x) { return std::exp(0.5F * x - 1); };
  const Tensors qku = {mapped(random_values(shape, 1), positive),
                       mapped(random_values(shape, 2), positive), random_values(shape, 3)};
  const Tensor gate = log_sigmoid(random_values(shape, 4)).value,
               gate2 = log_sigmoid(random_values(shape, 5)).value;
  // The running maximum moves now and then.
  const Tensor rho =
      mapped(random_values(rows, 6), [](float x) { return std::min(0.0F, x + 1.5F); });
  std::vector<OpCase> cases = {linear_attention_case("regla", qku, {}, gate, rho),
                               linear_attention_case("value", qku, {}, gate, {}),
                               linear_attention_case("plain", qku, {}, {}, {}),
                               linear_attention_case("scalar", qku, {}, {}, rho),
                               linear_attention_case("fast_decay", qku, gate2, gate, {}),
                               linear_attention_case("gla", qku, gate, {}, {}),
                               delta_rule_case(shape, rows),
                               softmax_attention_case(shape)};
  const auto tokens = static_cast<double>(batch * length),
             width = static_cast<double>(heads * head);
  for (OpCase& op : cases) {
    // Operations per token, head and value (docs/flops.md), forward and backward.
    double each = 12 * static_cast<double>(head);
    if (op.name == "delta_rule") each = 18 * static_cast<double>(head);
    if (op.name == "softmax_attention") each = 6 * static_cast<double>(length + 1);
    op.work = {.tokens = tokens, .flops = each * tokens * width};
  }
  return cases;
}

void bench_recurrences(const BenchOptions& options, Measurements& out) {
  constexpr int64_t kShortest = 1024;
  const ModelConfig& model = options.config.model;
  const int64_t tokens = options.longest;
  check(tokens >= kShortest && tokens % kShortest == 0, "[bench] expected --longest to be a ",
        "multiple of ", kShortest, ", got ", tokens);
  // One sequence in double: all of them would take longer than what is measured.
  for (const OpCase& op : recurrence_cases({1, kShortest, model.heads, model.head_dim()})) {
    if (out.wants(op.name)) PlacedOp(op, out).check(out);
  }
  const double element = size_of(activation_type(out.precision()));
  for (int64_t length = kShortest; length <= tokens; length *= 2) {
    if (tokens % length != 0) continue;
    for (const OpCase& op :
         recurrence_cases({tokens / length, length, model.heads, model.head_dim()})) {
      if (!out.wants(op.name)) continue;
      const PlacedOp placed(op, out);
      const std::string name = op.name + " T=" + std::to_string(length);
      double bytes = element * static_cast<double>(op.inputs[2].numel());  // o
      for (const Tensor& input : op.inputs) bytes += element * static_cast<double>(input.numel());
      out.time(name + " forward",
               {.tokens = op.work.tokens, .flops = op.work.flops / 3, .bytes = bytes},
               [&] { placed.run_forward(); });
      // Backward reads the inputs and d_o, and writes as many gradients.
      out.time(name + " both",
               {.tokens = op.work.tokens, .flops = op.work.flops, .bytes = 3 * bytes},
               [&] { placed.run(); });
    }
  }
}

}  // namespace regla::app
