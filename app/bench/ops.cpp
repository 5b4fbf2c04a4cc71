// Benchmarks of the parts of an update: products, single ops, recurrences.

#include "autograd/ops.h"

#include <algorithm>
#include <cmath>

#include "app/bench/cases.h"
#include "app/bench/op_case.h"
#include "backends/copies.h"
#include "backends/kernels.h"

namespace regla::app {
namespace {

/// The three products of a linear layer of `in` and `width` features over `rows` tokens.
void measure_linear(int64_t rows, int64_t in, int64_t width, Measurements& out) {
  const DType A = activation_type(out.precision()), S = sum_type(A);
  const auto random = [&](const Shape& shape, uint64_t seed) {
    return converted(random_values(shape, seed), A);
  };
  const Tensor x = random({rows, in}, 3), w = random({width, in}, 4),
               d_y = random({rows, width}, 5);
  const std::string name = "linear " + std::to_string(in) + "->" + std::to_string(width);
  const double flops = 2.0 * static_cast<double>(rows * in * width);
  const auto in_double = [](MatmulArgs args, const Shape& shape) {
    const Tensor exact = Tensor::empty(shape, DType::F64);
    args.a = converted(args.a, DType::F64);
    args.b = converted(args.b, DType::F64);
    kernels({}).matmul(args, Sink{exact});
    return exact;
  };
  const auto product = [&](const std::string& which, const MatmulArgs& args, const Shape& shape,
                           DType dtype) {
    if (!out.wants(name + which)) return;
    const Tensor y = Tensor::empty(shape, dtype, out.device());
    MatmulArgs there = args;
    there.a = args.a.on(out.device());
    there.b = args.b.on(out.device());
    const KernelTable& kernel = kernels(out.device());
    kernel.matmul(there, Sink{y});
    out.check_close(name + which + ", and in double", y, in_double(args, shape));
    out.time(name + which, {static_cast<double>(rows), flops},
             [&] { kernel.matmul(there, Sink{y}); });
  };
  product(" y", {.a = x, .b = w, .bias = {}, .transpose_b = true}, {rows, width}, A);
  product(" d_x", {.a = d_y, .b = w, .bias = {}}, {rows, in}, A);
  product(" d_weight", {.a = d_y, .b = x, .bias = {}, .transpose_a = true}, {width, in}, S);
}

// Reads and writes of an element that a function of one tensor cannot do without: x and y forward;
// x or y, d_y and d_x backward.
constexpr double kUnary = 5;

/// What surrounds the products in a block, and the loss.
void measure_block(const BenchOptions& options, Measurements& out) {
  const ModelConfig& model = options.config.model;
  const int64_t rows = options.config.batch_size * model.sequence_length, D = model.hidden;
  const int64_t width = model.mlp_width(), H = model.heads, V = model.head_dim();
  const double tokens = options.tokens();
  const auto element = static_cast<double>(size_of(activation_type(out.precision())));
  const auto work = [&](int64_t features, double passes) {
    return Work{.tokens = tokens,
                .bytes = tokens * static_cast<double>(features) * passes * element};
  };
  const Tensor x = random_values({rows, D}), gain = random_values({D}, 6),
               bias = random_values({D}, 7);
  measure({"layer_norm",
           work(D, kUnary),
           "ASS",
           {x, gain, bias},
           [&](const Vars& in) -> Vars {
             return {layer_norm(in[0], in[1], in[2], model.layer_norm_epsilon)};
           },
           {}},
          out);
  measure({"gelu",
           work(width, kUnary),
           "A",
           {random_values({rows, width})},
           [&](const Vars& in) -> Vars { return {gelu(in[0], model.gelu)}; },
           {}},
          out);
  const double rate = model.dropout > 0 ? model.dropout : 0.1;
  measure({"dropout",
           work(D, 4),
           "A",
           {x},
           [&](const Vars& in) -> Vars {
             return {dropout(in[0], rate, {1, 2, 0})};
           },
           {}},
          out);
  measure({"refined_gate",
           work(D, 8),
           "AA",
           {x, random_values({rows, D}, 8)},
           [](const Vars& in) -> Vars { return {refined_gate(in[0], in[1])}; },
           {}},
          out);
  const Shape heads = {options.config.batch_size, model.sequence_length, H, V};
  measure({"safe_exp",
           work(D, kUnary),
           "A",
           {x.reshape(heads)},
           [](const Vars& in) -> Vars {
             return {safe_exp(in[0], {}, {}, Maximum::Running, 1).features};
           },
           {}},
          out);
  measure({"head_norm",
           work(D, kUnary),
           "AS",
           {x.reshape(heads), random_values({H, V}, 6)},
           [](const Vars& in) -> Vars { return {head_norm(in[0], in[1], 1e-8, false)}; },
           {}},
          out);
  const Tensor targets = Tensor::of({rows}, random_ids(rows, model.vocab)),
               targets_there = targets.on(out.device());
  const double head = static_cast<double>(model.vocab * D);
  measure({"cross_entropy with head",
           {.tokens = tokens, .flops = 6 * tokens * head},
           "AA",
           {x, random_values({model.vocab, D}, 4)},
           [&](const Vars& in) -> Vars { return {cross_entropy(in[0], in[1], targets_there)}; },
           [&](const Vars& in) -> Vars { return {cross_entropy(in[0], in[1], targets)}; }},
          out);
}

/// One update of a matrix as large as the head.
void measure_adamw(const BenchOptions& options, Measurements& out) {
  if (!out.wants("adamw")) return;
  const Shape shape = {options.config.model.vocab, options.config.model.hidden};
  const auto arguments = [&](DType dtype, Device device) {
    const auto there = [=](const Tensor& x) { return converted(x, dtype).on(device); };
    return AdamWArgs{.weights = {{.value = there(random_values(shape, 1)),
                                  .gradient = there(random_values(shape, 2)),
                                  .m = there(random_values(shape, 3)),
                                  .v = there(mapped(random_values(shape, 4), std::fabs)),
                                  .copy = {},
                                  .decay = 0.01}},
                     .rates = Tensor::of({3}, std::vector<double>{1e-3, 0.5, 0.5}, device),
                     .factor = Tensor::full({1}, 0.5, DType::F64, device),
                     .beta1 = 0.9,
                     .beta2 = 0.999,
                     .epsilon = 1e-8};
  };
  const AdamWArgs args = arguments(sum_type(activation_type(out.precision())), out.device());
  const KernelTable& kernel = kernels(out.device());
  {
    const AdamWArgs exact = arguments(DType::F64, {});
    kernels({}).adamw(exact);
    kernel.adamw(args);
    out.check_close("adamw, and in double", args.weights[0].value, exact.weights[0].value);
  }
  // Reads value, gradient and both moments; writes all but the gradient.
  const double bytes = 7 * sizeof(float) * static_cast<double>(shape.numel());
  out.time("adamw", {.bytes = bytes}, [&] { kernel.adamw(args); });
}

}  // namespace

void bench_ops(const BenchOptions& options, Measurements& out) {
  const ModelConfig& model = options.config.model;
  const int64_t rows = options.config.batch_size * model.sequence_length;
  const int64_t D = model.hidden, width = model.mlp_width();
  measure_linear(rows, D, D, out);
  measure_linear(rows, D, width, out);
  measure_linear(rows, width, D, out);
  measure_block(options, out);
  measure_adamw(options, out);
  // The recurrences at one size for all configurations.
  for (OpCase& op : recurrence_cases({.batch = 8, .length = 512, .heads = 4, .head = 64})) {
    if (op.name != "softmax_attention") op.name = "recurrence " + op.name;
    measure(op, out);
  }
}

}  // namespace regla::app
