// The CUDA backend's recurrences, maxima over time, losses and products per head beside the CPU's.

#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "tests/backends/cuda_support.h"

namespace regla::test {
namespace {

/// What BF16 does in chunks of 64 tokens: one block to a head, and several in turn; sizes of whole
/// fragments, more columns than a block has.
const std::vector<HeadSizes> kChunkedSizes = {{2, 63, 1, 32, 64},
                                              {1, 65, 2, 96, 48},
                                              {1, 200, 1, 128, 128},
                                              {1, 1000, 2, 64, 64},
                                              {3, 129, 50, 16, 80}};

/// Logs of decays in (0, 1], and some of 0 where something is forgotten.
Tensor decays(const Shape& shape, uint64_t seed, bool forgets = true) {
  Tensor logs = spaced_tensor(shape, DType::F32, seed, -1.5, 0);
  if (!forgets) return logs;
  for (int64_t i = 0; i < logs.numel(); i += 97) logs.data<float>()[i] = 0;
  for (int64_t i = 5; i < logs.numel(); i += 89) {
    logs.data<float>()[i] = -std::numeric_limits<float>::infinity();
  }
  return logs;
}

struct Options {
  bool key, value, scalar, resets, carries;
  bool forgets = true;  // chunks have another way of meeting where nothing does
};

void check_linear_attention(const HeadSizes& n, const Options& with, Device device) {
  const Shape keys = {n.B, n.T, n.H, n.K}, values = {n.B, n.T, n.H, n.V};
  const Shape rows = {n.B, n.T, n.H}, states = {n.B, n.H, n.K, n.V};
  const Tensor q = floats(keys, 1, 0.3), k = floats(keys, 2, 0.3), u = floats(values, 3);
  const Tensor a = with.key ? decays(keys, 4, with.forgets) : Tensor{}, d_o = floats(values, 9);
  const Tensor b = with.value ? decays(values, 5, with.forgets) : Tensor{},
               d_state = floats(states, 10);
  const Tensor s = with.scalar ? decays(rows, 6, with.forgets) : Tensor{};
  const Tensor reset = with.resets ? random_mask({n.B, n.T}, 7, 0.05) : Tensor{};
  const Tensor state = with.carries ? floats(states, 8) : Tensor{};
  const auto args = [=](const Tensors& in, bool keep) {
    return LinearAttentionArgs{.q = in[0],
                               .k = in[1],
                               .u = in[2],
                               .log_a = in[3],
                               .log_b = in[4],
                               .log_s = in[5],
                               .reset = in[6],
                               .state = in[7],
                               .chunk = 0,
                               .keep = keep};
  };
  // Chunks round operands of products on the way.
  const auto fits = [](int64_t size) { return size % 16 == 0 && size <= 128; };
  const bool in_chunks = fits(n.K) && fits(n.V);
  check_case({.name = "linear_attention",
              .in_types = "AAAAASIS",
              .in = {q, k, u, a, b, s, reset, state},
              .out_types = "AS",
              .out = {u, d_state},
              .call =
                  [=](const auto& on, const auto& in, const auto& out) {
                    RecurrenceResult result = {out[0], out[1], {}};
                    on.linear_attention(args(in, false), result);
                  },
              .tolerance = 1e-5,
              .rounded = in_chunks ? 5e-3 : 0},
             device);
  // Gradients of operands and of decays apart: BF16's bounds differ, and each has some unwanted.
  // Sinks that are added to are in F32, as where several ops read a value.
  const auto check_gradients = [&](const std::string& name, const std::string& types,
                                   const Tensors& out, size_t first, bool adds, double rounded,
                                   double least) {
    check_case(
        {.name = name,
         .in_types = "AAAAASISAS",
         .in = {q, k, u, a, b, s, reset, state, d_o, d_state},
         .out_types = types,
         .out = out,
         .call =
             [=](const auto& on, const auto& in, const auto& to) {
               RecurrenceResult result = {Tensor::empty_like(in[2]), beside(in[2], states), {}};
               on.linear_attention(args(in, true), result);
               const auto sink = [&](size_t i) {
                 const bool wanted = i >= first && i < first + to.size();
                 return wanted ? Sink{to[i - first], adds} : Sink{};
               };
               on.linear_attention_backward(args(in, true), result,
                                            {.d_o = in[8],
                                             .d_state = in[9],
                                             .d_q = sink(0),
                                             .d_k = sink(1),
                                             .d_u = sink(2),
                                             .d_log_a = sink(4),
                                             .d_log_b = sink(5),
                                             .d_log_s = sink(6),
                                             .d_state0 = sink(3)});
             },
         .tolerance = 2e-5,
         .narrow_tolerance = 1e-2,
         .narrow_sums = 1e-2,
         .least = least,
         .rounded = in_chunks ? rounded : 0},
        device);
  };
  check_gradients("gradients of operands", "AAAS", {q, k, u, state}, 0, false, 5e-3, 0);
  check_gradients("gradients of operands, added", "SSSS", {q, k, u, state}, 0, true, 5e-3, 0);
  // Those of decays are differences of terms of that size.
  check_gradients("gradients of decays", "AAS", {a, b, s}, 4, false, 2e-2, 1);
}

/// Rows of length 1.
Tensor unit_rows(const Shape& shape, uint64_t seed) {
  Tensor x = floats(shape, seed);
  const int64_t width = shape[shape.rank() - 1];
  for (int64_t first = 0; first < x.numel(); first += width) {
    float* const row = x.data<float>() + first;
    double sum = 0;
    for (int64_t i = 0; i < width; ++i) sum += double{row[i]} * double{row[i]};
    for (int64_t i = 0; i < width; ++i) row[i] = static_cast<float>(row[i] / std::sqrt(sum));
  }
  return x;
}

void check_delta_rule(const HeadSizes& n, bool resets, bool carries, Device device) {
  const Shape keys = {n.B, n.T, n.H, n.K}, values = {n.B, n.T, n.H, n.V};
  const Shape rows = {n.B, n.T, n.H}, states = {n.B, n.H, n.K, n.V};
  const double size = 1 / std::sqrt(static_cast<double>(n.K));
  const Tensor q = floats(keys, 1, size), k = unit_rows(keys, 2), v = floats(values, 3);
  Tensor g = spaced_tensor(rows, DType::F32, 4, 0, 1);
  for (int64_t i = 0; i < g.numel(); i += 7) g.data<float>()[i] = i % 2 == 0 ? 0 : 1;
  const Tensor d_o = floats(values, 9);
  const Tensor reset = resets ? random_mask({n.B, n.T}, 7, 0.05) : Tensor{};
  const Tensor state = carries ? floats(states, 8) : Tensor{};
  const Tensor last = floats(states, 10), d_state = carries ? last : Tensor{};
  const auto args = [=](const Tensors& in, bool keep) {
    return DeltaRuleArgs{.q = in[0],
                         .k = in[1],
                         .v = in[2],
                         .g = in[3],
                         .reset = in[4],
                         .state = in[5],
                         .chunk = 0,
                         .keep = keep};
  };
  check_case({.name = "delta_rule",
              .in_types = "AAASIS",
              .in = {q, k, v, g, reset, state},
              .out_types = "AS",
              .out = {v, last},
              .call =
                  [=](const auto& on, const auto& in, const auto& out) {
                    RecurrenceResult result = {out[0], out[1], {}};
                    on.delta_rule(args(in, false), result);
                  },
              .tolerance = 2e-5,
              .rounded = 5e-3},
             device);
  // Gradients of operands and of strengths apart: BF16's bounds differ, and each has some unwanted.
  const auto check_gradients = [&](const std::string& name, const std::string& types,
                                   const Tensors& out, size_t first, bool adds, double rounded) {
    check_case(
        {.name = name,
         .in_types = "AAASISAS",
         .in = {q, k, v, g, reset, state, d_o, d_state},
         .out_types = types,
         .out = out,
         .call =
             [=](const auto& on, const auto& in, const auto& to) {
               RecurrenceResult result = {Tensor::empty_like(in[2]), beside(in[2], states), {}};
               on.delta_rule(args(in, true), result);
               const auto sink = [&](size_t i) {
                 const bool wanted = i >= first && i < first + to.size();
                 return wanted ? Sink{to[i - first], adds} : Sink{};
               };
               on.delta_rule_backward(args(in, true), result,
                                      {.d_o = in[6],
                                       .d_state = in[7],
                                       .d_q = sink(0),
                                       .d_k = sink(1),
                                       .d_v = sink(2),
                                       .d_g = sink(4),
                                       .d_state0 = sink(3)});
             },
         .tolerance = 5e-5,
         .rounded = rounded},
        device);
  };
  check_gradients("gradients of operands", "AAAS", {q, k, v, last}, 0, false, 5e-3);
  check_gradients("gradients of operands, added", "SSSS", {q, k, v, last}, 0, true, 5e-3);
  check_gradients("gradients of strengths", "S", {g}, 4, false, 2e-2);
}

}  // namespace

TEST_CASE("a GPU's linear attention is the CPU's, with every decay", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const auto& list : {kHeadSizes, kChunkedSizes}) {
    for (const HeadSizes& n : list) {
      INFO("T " << n.T << ", H " << n.H << ", K " << n.K << ", V " << n.V);
      check_linear_attention(n, {false, false, false, false, false}, *device);
      check_linear_attention(n, {false, true, false, true, true}, *device);
      check_linear_attention(n, {true, false, true, true, false}, *device);
      check_linear_attention(n, {true, true, true, false, true}, *device);
      check_linear_attention(n, {true, true, false, true, false}, *device);
      check_linear_attention(n, {false, false, true, true, true}, *device);
      check_linear_attention(n, {false, true, true, false, true, false}, *device);
      check_linear_attention(n, {true, false, false, true, false, false}, *device);
      check_linear_attention(n, {true, true, false, true, true, false}, *device);
    }
  }
}

TEST_CASE("a GPU's delta rule is the CPU's", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const auto& list : {kHeadSizes, kChunkedSizes}) {
    for (const HeadSizes& n : list) {
      INFO("T " << n.T << ", H " << n.H << ", K " << n.K << ", V " << n.V);
      check_delta_rule(n, false, false, *device);
      check_delta_rule(n, true, true, *device);
    }
  }
}

TEST_CASE("a GPU's steps of recurrences are the CPU's", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  const Shape keys = {2, 1, 3, 33}, values = {2, 1, 3, 40}, states = {2, 3, 33, 40};
  const Tensor q = floats(keys, 1), k = floats(keys, 2, 0.2), u = floats(values, 3);
  const Tensor reset = Tensor::of({2, 1}, std::vector<int32_t>{1, 0});
  check_case({"linear_attention_step",
              "AAAAASI",
              {q, k, u, decays(keys, 4), decays(values, 5), decays({2, 1, 3}, 6), reset},
              "AS",
              {u, floats(states, 7)},
              [](const auto& on, const auto& in, const auto& out) {
                on.linear_attention_step({.q = in[0],
                                          .k = in[1],
                                          .u = in[2],
                                          .log_a = in[3],
                                          .log_b = in[4],
                                          .log_s = in[5],
                                          .reset = in[6],
                                          .state = out[1],
                                          .chunk = 1,
                                          .keep = false},
                                         out[0]);
              }},
             *device);
  check_case({"delta_rule_step",
              "AAASI",
              {q, k, u, spaced_tensor({2, 1, 3}, DType::F32, 6, 0, 1), reset},
              "AS",
              {u, floats(states, 7)},
              [](const auto& on, const auto& in, const auto& out) {
                on.delta_rule_step({.q = in[0],
                                    .k = in[1],
                                    .v = in[2],
                                    .g = in[3],
                                    .reset = in[4],
                                    .state = out[1],
                                    .chunk = 1,
                                    .keep = false},
                                   out[0]);
              },
              5e-6},
             *device);
}

namespace {

/// A call of the safe exponential, with an earlier maximum and resets or without.
struct SafeExpCase {
  HeadSizes n;
  Maximum maximum;
  bool seen;
  int64_t rotary;
};

void check_safe_exp(const SafeExpCase& c, Device device) {
  const auto& [n, maximum, seen, rotary] = c;
  const Shape shape = {n.B, n.T, n.H, n.K}, rows = {n.B, n.T, n.H}, heads = {n.B, n.H};
  Tensor z = floats(shape, 1, 2);
  // Some elements equal, so that ties are met; those that turn are equal to rounding only.
  for (int64_t i = 0; i < z.numel() && rotary == 0; i += 5) z.data<float>()[i] = 3;
  Tensor m0 = floats(heads, 2, 4);
  m0.data<float>()[0] = -std::numeric_limits<float>::infinity();
  if (n.H > 1) m0.data<float>()[1] = 20;  // that no key reaches
  const bool carries = maximum != Maximum::Token;
  const Tensor before = seen ? m0 : Tensor{};
  const Tensor reset = seen ? random_mask({n.B, n.T}, 3, 0.06) : Tensor{};
  const Tensor positions = rotary > 0 ? random_ids({n.B, n.T}, 7, 5000) : Tensor{};
  const Tensor d_features = floats(shape, 4);
  const Tensor rho = carries ? floats(rows, 5) : Tensor{},
               last = carries ? floats(heads, 6) : Tensor{};
  const Tensor places = Tensor::zeros(rows, DType::I32);
  INFO("T " << n.T << ", K " << n.K << ", turned " << rotary << ", maximum "
            << static_cast<int>(maximum) << seen);
  const auto args = [maximum = maximum, rotary = rotary](const Tensors& in) {
    return SafeExpArgs{in[0], {in[1], rotary}, in[2], in[3], maximum, 0.7};
  };
  check_case({"safe_exp",
              "SISI",
              {z, positions, before, reset},
              "ASSI",
              {d_features, rho, last, places},
              [=](const auto& on, const auto& in, const auto& out) {
                SafeExpResult result = {out[0], out[1], out[2], out[3]};
                on.safe_exp(args(in), result);
              },
              3e-6},
             device);
  for (const char* types : {"SS", "AS"}) {
    check_case({"safe_exp_backward",
                "SISIASS",
                {z, positions, before, reset, d_features, rho, last},
                types,
                {z, before},
                [=](const auto& on, const auto& in, const auto& out) {
                  const Tensor like = in[4];
                  const auto empty = [&](const Tensor& x) {
                    return x.defined() ? Tensor::empty_like(x) : Tensor{};
                  };
                  SafeExpResult result = {Tensor::empty_like(like), empty(in[5]), empty(in[6]),
                                          Tensor::empty(rows, DType::I32, like.device())};
                  on.safe_exp(args(in), result);
                  on.safe_exp_backward(args(in), result, in[4], in[5], in[6],
                                       {{tokens_of(out[0]), true}}, {out[1], out[1].defined()});
                },
                1e-5,
                1e-2,
                1e-2},
               device);
  }
}

}  // namespace

TEST_CASE("a GPU's safe exponential is the CPU's, through every maximum", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  std::vector<HeadSizes> sizes = kHeadSizes;
  sizes.push_back({2, 1100, 2, 8, 8});  // several tokens for a thread of the scan
  sizes.push_back({1, 9, 1, 1040, 8});  // several units for a thread of a row
  for (const HeadSizes& n : sizes) {
    for (const Maximum maximum : {Maximum::Running, Maximum::Sequence, Maximum::Token}) {
      for (const int64_t rotary : {int64_t{0}, n.K / 4 * 2, n.K / 2 * 2}) {
        check_safe_exp({n, maximum, false, rotary}, *device);
        if (maximum != Maximum::Token) check_safe_exp({n, maximum, true, rotary}, *device);
      }
    }
  }
}

TEST_CASE("a GPU's matrices per head are the CPU's", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const auto& [R, H, N, F] : std::vector<std::array<int64_t, 4>>{
           {1, 1, 8, 8}, {70, 3, 16, 24}, {513, 12, 64, 64}, {31, 2, 9, 7}}) {
    INFO(R << " rows, " << H << " heads, " << N << " to " << F);
    const Tensor x = floats({R, H, N}, 1), weight = floats({H * F, N}, 2);
    const Tensor bias = floats({H * F}, 3), d_y = floats({R, H, F}, 4);
    for (const char result : {'A', 'S'}) {
      for (const bool has_bias : {false, true}) {
        KernelCase c = {"head_linear",
                        {'A', 'A', result},
                        {x, weight, has_bias ? bias : Tensor{}},
                        {result},
                        {d_y},
                        [](const auto& on, const auto& in, const auto& out) {
                          on.head_linear({in[0], in[1], in[2]}, out[0]);
                        },
                        1e-5};
        check_case(c, *device);
      }
    }
    for (const bool adds : {false, true}) {
      check_case(
          {adds ? "head_linear_backward, added" : "head_linear_backward",
           "AAA",
           {x, weight, d_y},
           "AS",
           {x, weight},
           [=](const auto& on, const auto& in, const auto& out) {
             on.head_linear_backward({in[0], in[1], {}}, in[2], {out[0], adds}, {out[1], adds});
           },
           1e-5},
          *device);
    }
  }
}

}  // namespace regla::test
