// Benchmarks of the parts of an update: products, single ops, recurrences.

#include "autograd/ops.h"

#include <algorithm>
#include <cmath>

#include "app/bench/cases.h"
#include "backends/copies.h"
#include "backends/kernels.h"

namespace regla::app {
namespace {

using Function = std::function<Var(const Vars&)>;

/// A differentiable function to be timed forward and backward.
struct OpCase {
  std::string name;
  Work work;
  std::string types;   // of the inputs, A or S (backends/kernels.h)
  Tensors inputs;      // F32, on the CPU; gradients of all of them are computed
  Function f;          // what is timed
  Function reference;  // what it must agree with in double on the CPU; by default f itself
  size_t decays = 0;   // so many of the inputs, the last: their gradients nearly cancel
};

/// The value of f, then the gradients of its inputs for a gradient `seed` of the value; undefined:
/// the value is a loss.
Tensors run(const Function& f, const Tensors& inputs, const Tensor& seed) {
  Tape tape;
  Vars leaves;
  for (const Tensor& input : inputs) leaves.push_back(tape.leaf(input));
  const Var y = f(leaves);
  if (seed) {
    tape.backward({y}, {seed});
  } else {
    tape.backward(y);
  }
  Tensors results = {y.value};
  for (const Var& leaf : leaves) results.push_back(tape.gradient(leaf));
  return results;
}

/// The inputs as this precision has them, on the CPU.
Tensors inputs_of(const OpCase& op, Precision precision) {
  const DType A = activation_type(precision);
  Tensors inputs;
  for (size_t i = 0; i < op.inputs.size(); ++i) {
    inputs.push_back(converted(op.inputs[i], op.types.at(i) == 'A' ? A : sum_type(A)));
  }
  return inputs;
}

/// A gradient of the value of f; undefined where that is one number, a loss.
Tensor seed_of(const OpCase& op, const Tensors& inputs) {
  const Tensor y = op.f({inputs.begin(), inputs.end()}).value;
  return y.numel() == 1 ? Tensor{} : converted(random_values(y.shape(), 9), y.dtype());
}

/// What the gradient of a decay, a sum of differences that nearly cancels, may be off by in BF16
/// (docs/precision.md).
double least_of_decays(const Tensor& exact, Precision precision) {
  return precision == Precision::Bf16 ? 2e-2 * mean_size(exact) : 0;
}

/// An Error unless value and gradients are those in double on the CPU.
void check_in_double(const OpCase& op, const Tensors& inputs, const Tensor& seed,
                     const Measurements& out) {
  Tensors exact;
  for (const Tensor& input : inputs) exact.push_back(converted(input.on({}), DType::F64));
  const Tensor exact_seed = seed ? converted(seed.on({}), DType::F64) : seed;
  exact = run(op.reference ? op.reference : op.f, exact, exact_seed);
  const Tensors results = run(op.f, inputs, seed);
  for (size_t i = 0; i < results.size(); ++i) {
    const std::string what = i == 0 ? "value" : "gradient of input " + std::to_string(i);
    const bool is_decay = i + op.decays >= results.size();
    out.check_close(op.name + ", " + what + ", and in double", results[i], exact[i],
                    is_decay ? least_of_decays(exact[i], out.precision()) : 0);
  }
}

void measure(const OpCase& op, Measurements& out) {
  if (!out.wants(op.name)) return;
  Tensors inputs;
  for (const Tensor& input : inputs_of(op, out.precision())) {
    inputs.push_back(input.on(out.device()));
  }
  const Tensor seed = seed_of(op, inputs).on(out.device());
  check_in_double(op, inputs, seed, out);
  out.time(op.name, op.work, [&] { run(op.f, inputs, seed); });
}

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

Tensor mapped(const Tensor& x, float (*f)(float)) {
  Tensor y = Tensor::empty_like(x);
  std::transform(x.data<float>(), x.data<float>() + x.numel(), y.data<float>(), f);
  return y;
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
  measure(
      {"layer_norm",
       work(D, kUnary),
       "ASS",
       {x, gain, bias},
       [&](const Vars& in) { return layer_norm(in[0], in[1], in[2], model.layer_norm_epsilon); },
       {}},
      out);
  measure({"gelu",
           work(width, kUnary),
           "A",
           {random_values({rows, width})},
           [&](const Vars& in) { return gelu(in[0], model.gelu); },
           {}},
          out);
  const double rate = model.dropout > 0 ? model.dropout : 0.1;
  measure({"dropout",
           work(D, 4),
           "A",
           {x},
           [&](const Vars& in) {
             return dropout(in[0], rate, {1, 2, 0});
           },
           {}},
          out);
  measure({"refined_gate",
           work(D, 8),
           "AA",
           {x, random_values({rows, D}, 8)},
           [](const Vars& in) { return refined_gate(in[0], in[1]); },
           {}},
          out);
  const Shape heads = {options.config.batch_size, model.sequence_length, H, V};
  measure({"safe_exp",
           work(D, kUnary),
           "A",
           {x.reshape(heads)},
           [](const Vars& in) { return safe_exp(in[0], {}, {}, Maximum::Running, 1).features; },
           {}},
          out);
  measure({"head_norm",
           work(D, kUnary),
           "AS",
           {x.reshape(heads), random_values({H, V}, 6)},
           [](const Vars& in) { return head_norm(in[0], in[1], 1e-8, false); },
           {}},
          out);
  const Tensor targets = Tensor::of({rows}, random_ids(rows, model.vocab)),
               targets_there = targets.on(out.device());
  const double head = static_cast<double>(model.vocab * D);
  measure({"cross_entropy with head",
           {.tokens = tokens, .flops = 6 * tokens * head},
           "AA",
           {x, random_values({model.vocab, D}, 4)},
           [&](const Vars& in) { return cross_entropy(in[0], in[1], targets_there); },
           [&](const Vars& in) { return cross_entropy(in[0], in[1], targets); }},
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

// The recurrences at one size for all configurations: B*H = 32, T = 512, K = V = 64.
constexpr int64_t kBatch = 8, kHeads = 4, kLength = 512, kHead = 64;
constexpr double kTokens = kBatch * kLength;

void measure_recurrences(Measurements& out) {
  const Shape shape = {kBatch, kLength, kHeads, kHead};
  const auto positive = [](float x) { return std::exp(0.5F * x - 1); };
  const Tensor q = mapped(random_values(shape, 1), positive),
               k = mapped(random_values(shape, 2), positive), u = random_values(shape, 3),
               gate = log_sigmoid(random_values(shape, 4)).value,
               gate2 = log_sigmoid(random_values(shape, 5)).value;
  // The running maximum moves now and then.
  const Tensor rho = mapped(random_values({kBatch, kLength, kHeads}, 6),
                            [](float x) { return std::min(0.0F, x + 1.5F); });
  const struct {
    const char* name;
    Tensor key, value, scalar;
  } forms[] = {{"regla", {}, gate, rho},
               {"plain", {}, {}, {}},
               {"fast_decay", gate2, gate, {}},
               {"gla", gate, {}, {}}};
  for (const auto& form : forms) {
    Tensors inputs = {q, k, u};
    std::string types = "AAA";
    for (const Tensor& decay : {form.key, form.value, form.scalar}) {
      if (!decay) continue;
      inputs.push_back(decay);
      types += decay.rank() == 4 ? 'A' : 'S';
    }
    const auto recurrence = [&](const Vars& in, int64_t chunk) {
      size_t next = 3;
      LogDecays decays;
      if (form.key) decays.key = in[next++];
      if (form.value) decays.value = in[next++];
      if (form.scalar) decays.scalar = in[next++];
      return linear_attention(in[0], in[1], in[2], decays, {}, {}, chunk).o;
    };
    measure({std::string("recurrence ") + form.name,
             {.tokens = kTokens, .flops = 12.0 * kTokens * kHeads * kHead * kHead},
             types,
             inputs,
             [&](const Vars& in) { return recurrence(in, 0); },
             [&](const Vars& in) { return recurrence(in, 1); },
             inputs.size() - 3},
            out);
  }
}

void measure_delta_rule(Measurements& out) {
  const Shape shape = {kBatch, kLength, kHeads, kHead};
  // Keys of at most unit length, for which the delta rule is stable.
  const auto unit = [&](uint64_t stream) { return softmax(random_values(shape, stream)).value; };
  const Tensor g = sigmoid(random_values({kBatch, kLength, kHeads}, 4)).value;
  const auto rule = [](int64_t chunk) {
    return
        [chunk](const Vars& in) { return delta_rule(in[0], in[1], in[2], in[3], {}, {}, chunk).o; };
  };
  measure({"recurrence delta_rule",
           {.tokens = kTokens, .flops = 18.0 * kTokens * kHeads * kHead * kHead},
           "AAAS",
           {unit(1), unit(2), random_values(shape, 3), g},
           rule(0),
           rule(1)},
          out);
}

void measure_softmax_attention(Measurements& out) {
  const Shape shape = {kBatch, kLength, kHeads, kHead};
  const double seen = 0.5 * (kLength + 1);
  measure({"softmax_attention",
           {.tokens = kTokens, .flops = 12.0 * kTokens * kHeads * kHead * seen},
           "AAA",
           {random_values(shape, 1), random_values(shape, 2), random_values(shape, 3)},
           [](const Vars& in) {
             return softmax_attention(in[0], in[1], in[2], {}, 0, 1 / std::sqrt(1.0 * kHead));
           },
           {}},
          out);
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
  measure_recurrences(out);
  measure_delta_rule(out);
  measure_softmax_attention(out);
}

}  // namespace regla::app
