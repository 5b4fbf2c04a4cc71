// Benchmarks of the recurrences and of softmax attention.

#include <algorithm>
#include <cmath>

#include "app/bench/cases.h"
#include "app/bench/op_case.h"
#include "autograd/ops.h"

namespace regla::app {
namespace {

/// Linear attention with the decays that are there, from `state` on if there is one, whose
/// gradient and that of the last state are then computed too.
OpCase linear_attention_case(const std::string& name, const Tensors& qku, const Tensor& key,
                             const Tensor& value, const Tensor& scalar, const Tensor& state = {}) {
  OpCase op = {.name = name, .work = {}, .types = "AAA", .inputs = qku, .f = {}, .reference = {}};
  for (const Tensor& decay : {key, value, scalar}) {
    if (!decay) continue;
    op.decays.push_back(op.inputs.size());
    op.inputs.push_back(decay);
    op.types += decay.rank() == 4 ? 'A' : 'S';
  }
  const bool has_state = state.defined();
  if (has_state) {
    op.inputs.push_back(state);
    op.types += 'S';
  }
  const bool has_key = key.defined(), has_value = value.defined(), has_scalar = scalar.defined();
  const auto form = [=](int64_t chunk) {
    return [=](const Vars& in) -> Vars {
      size_t next = 3;
      LogDecays decays;
      if (has_key) decays.key = in[next++];
      if (has_value) decays.value = in[next++];
      if (has_scalar) decays.scalar = in[next++];
      if (!has_state) return {linear_attention(in[0], in[1], in[2], decays, {}, {}, chunk).o};
      const Recurrence out = linear_attention(in[0], in[1], in[2], decays, {}, in[next], chunk);
      return {out.o, out.state};
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
    return [chunk](const Vars& in) -> Vars {
      return {delta_rule(in[0], in[1], in[2], in[3], {}, {}, chunk).o};
    };
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
          .f = [=](const Vars& in) -> Vars {
            return {softmax_attention(in[0], in[1], in[2], {}, 0, scale)};
          },
          .reference = {}};
}

/// Operations forward and backward over segments of the case's length (docs/flops.md).
double flops_of(const OpCase& op) {
  const Tensor& u = op.inputs[2];
  double each = 12 * static_cast<double>(u.dim(3));  // per token, head and value
  if (op.name == "delta_rule") each = 18 * static_cast<double>(u.dim(3));
  if (op.name == "softmax_attention") each = 6 * static_cast<double>(u.dim(1) + 1);
  return each * static_cast<double>(u.numel());
}

/// Whether an input is a state [B, H, K, V].
bool is_state(const OpCase& op, size_t input) {
  return op.types[input] == 'S' && op.inputs[input].rank() == 4;
}

/// The same tokens in segments of another length, which is not below the present one.
OpCase in_segments(OpCase op, int64_t length) {
  const int64_t batch = op.inputs[0].dim(0) * op.inputs[0].dim(1) / length;
  for (size_t i = 0; i < op.inputs.size(); ++i) {
    Tensor& x = op.inputs[i];
    if (is_state(op, i)) {
      x = x.slice(0, batch);
    } else if (x.rank() == 4) {
      x = x.reshape({batch, length, x.dim(2), x.dim(3)});
    } else {
      x = x.reshape({batch, length, x.dim(2)});
    }
  }
  op.work.flops = flops_of(op);
  return op;
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
  const Tensor state = random_values({batch, heads, head, head}, 7);
  std::vector<OpCase> cases = {linear_attention_case("regla", qku, {}, gate, rho),
                               linear_attention_case("value", qku, {}, gate, {}),
                               linear_attention_case("value with states", qku, {}, gate, {}, state),
                               linear_attention_case("plain", qku, {}, {}, {}),
                               linear_attention_case("scalar", qku, {}, {}, rho),
                               linear_attention_case("fast_decay", qku, gate2, gate, {}),
                               linear_attention_case("gla", qku, gate, {}, {}),
                               delta_rule_case(shape, rows),
                               softmax_attention_case(shape)};
  for (OpCase& op : cases) {
    op.work = {.tokens = static_cast<double>(batch * length), .flops = flops_of(op)};
  }
  return cases;
}

void bench_recurrences(const BenchOptions& options, Measurements& out) {
  constexpr int64_t kShortest = 1024;
  const ModelConfig& model = options.config.model;
  const int64_t tokens = options.longest, heads = model.heads, head = model.head_dim();
  const std::vector<int64_t> lengths = segment_lengths(kShortest, tokens);
  // One sequence in double: all of them would take longer than what is measured.
  for (const OpCase& op : recurrence_cases({1, kShortest, heads, head})) {
    if (out.wants(op.name)) PlacedOp(op, out).check(out);
  }
  const DType A = activation_type(out.precision());
  const auto bytes_of = [&](const Tensor& x, char type) {
    const size_t element = size_of(type == 'A' ? A : sum_type(A));
    return static_cast<double>(element) * static_cast<double>(x.numel());
  };
  const std::vector<OpCase> cases = recurrence_cases({tokens / kShortest, kShortest, heads, head});
  for (const int64_t length : lengths) {
    for (const OpCase& one : cases) {
      if (!out.wants(one.name)) continue;
      const OpCase op = in_segments(one, length);
      const PlacedOp placed(op, out);
      const std::string name = op.name + " T=" + std::to_string(length);
      double bytes = bytes_of(op.inputs[2], 'A');  // o
      for (size_t i = 0; i < op.inputs.size(); ++i) {
        bytes += bytes_of(op.inputs[i], op.types[i]) * (is_state(op, i) ? 2 : 1);  // and the last
      }
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
