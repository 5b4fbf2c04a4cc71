// The CUDA backend's recurrences, attention, maxima over time and losses beside the CPU's.

#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "tests/backends/cuda_support.h"

namespace regla::test {
namespace {

struct Sizes {
  int64_t B, T, H, K, V;
};

/// Lengths around those of a segment, and sizes that no warp likes.
const std::vector<Sizes> kSizes = {{2, 1, 3, 4, 5},     {1, 63, 2, 16, 16},  {2, 65, 3, 33, 20},
                                   {1, 130, 2, 64, 64}, {1, 70, 2, 10, 130}, {1, 40, 1, 384, 48}};

/// Logs of decays in (0, 1], some of 0.
Tensor decays(const Shape& shape, uint64_t seed) {
  Tensor logs = spaced_tensor(shape, DType::F32, seed, -1.5, 0);
  for (int64_t i = 0; i < logs.numel(); i += 97) logs.data<float>()[i] = 0;
  for (int64_t i = 5; i < logs.numel(); i += 89) {
    logs.data<float>()[i] = -std::numeric_limits<float>::infinity();
  }
  return logs;
}

struct Options {
  bool key, value, scalar, resets, carries;
};

void check_linear_attention(const Sizes& n, const Options& with, Device device) {
  const Shape keys = {n.B, n.T, n.H, n.K}, values = {n.B, n.T, n.H, n.V};
  const Shape rows = {n.B, n.T, n.H}, states = {n.B, n.H, n.K, n.V};
  const Tensor q = floats(keys, 1, 0.3), k = floats(keys, 2, 0.3), u = floats(values, 3);
  const Tensor a = with.key ? decays(keys, 4) : Tensor{}, d_o = floats(values, 9);
  const Tensor b = with.value ? decays(values, 5) : Tensor{}, d_state = floats(states, 10);
  const Tensor s = with.scalar ? decays(rows, 6) : Tensor{};
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
  check_case({"linear_attention",
              "AAAAASIS",
              {q, k, u, a, b, s, reset, state},
              "AS",
              {u, d_state},
              [=](const auto& on, const auto& in, const auto& out) {
                RecurrenceResult result = {out[0], out[1], {}};
                on.linear_attention(args(in, false), result);
              },
              1e-5},
             device);
  check_case({"linear_attention_backward",
              "AAAAASISAS",
              {q, k, u, a, b, s, reset, state, d_o, d_state},
              "AAAAASS",
              {q, k, u, a, b, s, state},
              [=](const auto& on, const auto& in, const auto& out) {
                RecurrenceResult result = {Tensor::empty_like(in[2]), beside(in[2], states), {}};
                on.linear_attention(args(in, true), result);
                const auto to = [&](size_t i) { return Sink{out[i], false}; };
                on.linear_attention_backward(args(in, true), result,
                                             {.d_o = in[8],
                                              .d_state = in[9],
                                              .d_q = to(0),
                                              .d_k = to(1),
                                              .d_u = to(2),
                                              .d_log_a = to(3),
                                              .d_log_b = to(4),
                                              .d_log_s = to(5),
                                              .d_state0 = to(6)});
              },
              2e-5,
              1e-2,
              1e-2},
             device);
}

void check_delta_rule(const Sizes& n, bool resets, bool carries, Device device) {
  const Shape keys = {n.B, n.T, n.H, n.K}, values = {n.B, n.T, n.H, n.V};
  const Shape rows = {n.B, n.T, n.H}, states = {n.B, n.H, n.K, n.V};
  const double size = 1 / std::sqrt(static_cast<double>(n.K));
  const Tensor q = floats(keys, 1, size), k = floats(keys, 2, size), v = floats(values, 3);
  const Tensor g = spaced_tensor(rows, DType::F32, 4, 0, 1), d_o = floats(values, 9);
  const Tensor reset = resets ? random_mask({n.B, n.T}, 7, 0.05) : Tensor{};
  const Tensor state = carries ? floats(states, 8) : Tensor{}, d_state = floats(states, 10);
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
  check_case({"delta_rule",
              "AAASIS",
              {q, k, v, g, reset, state},
              "AS",
              {v, d_state},
              [=](const auto& on, const auto& in, const auto& out) {
                RecurrenceResult result = {out[0], out[1], {}};
                on.delta_rule(args(in, false), result);
              },
              2e-5},
             device);
  check_case({"delta_rule_backward",
              "AAASISAS",
              {q, k, v, g, reset, state, d_o, d_state},
              "AAASS",
              {q, k, v, g, state},
              [=](const auto& on, const auto& in, const auto& out) {
                RecurrenceResult result = {Tensor::empty_like(in[2]), beside(in[2], states), {}};
                on.delta_rule(args(in, true), result);
                on.delta_rule_backward(args(in, true), result,
                                       {.d_o = in[6],
                                        .d_state = in[7],
                                        .d_q = {out[0], false},
                                        .d_k = {out[1], false},
                                        .d_v = {out[2], false},
                                        .d_g = {out[3], false},
                                        .d_state0 = {out[4], false}});
              },
              5e-5},
             device);
}

void check_attention(const Sizes& n, int64_t past, int64_t window, bool documents, Device device) {
  const Shape queries = {n.B, n.T, n.H, n.K}, outputs = {n.B, n.T, n.H, n.V};
  const Tensor q = floats(queries, 1), k = floats({n.B, past + n.T, n.H, n.K}, 2);
  const Tensor v = floats({n.B, past + n.T, n.H, n.V}, 3), d_o = floats(outputs, 4);
  Tensor first = random_ids({n.B, n.T}, 5, past + 1);
  for (int64_t i = 0; i < n.B * n.T; ++i) {  // some documents begin at their own token
    if (i % 7 == 3) first.data<int32_t>()[i] = static_cast<int32_t>(past + i % n.T);
  }
  if (!documents) first = {};
  const auto args = [=](const Tensors& in) {
    return SoftmaxAttentionArgs{in[0], in[1], in[2], in[3], window, 0.2};
  };
  const Tensor sums = Tensor::zeros({n.B, n.T, n.H}, DType::F32);
  check_case({"softmax_attention",
              "AAAI",
              {q, k, v, first},
              "AS",
              {d_o, sums},
              [=](const auto& on, const auto& in, const auto& out) {
                on.softmax_attention(args(in), out[0], out[1]);
              },
              5e-6},
             device);
  for (const bool adds : {false, true}) {
    check_case({"softmax_attention_backward",
                "AAAIA",
                {q, k, v, first, d_o},
                "AAA",
                {q, k, v},
                [=](const auto& on, const auto& in, const auto& out) {
                  const Tensor o = Tensor::empty_like(in[4]);
                  const Tensor log_sum = beside(o, {n.B, n.T, n.H});
                  on.softmax_attention(args(in), o, log_sum);
                  on.softmax_attention_backward(args(in), o, log_sum, in[4], {out[0], adds},
                                                {out[1], adds}, {out[2], adds});
                },
                2e-5,
                1.5e-2},
               device);
  }
}

}  // namespace

TEST_CASE("a GPU's linear attention is the CPU's, with every decay", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const Sizes& n : kSizes) {
    INFO("T " << n.T << ", K " << n.K << ", V " << n.V);
    check_linear_attention(n, {false, false, false, false, false}, *device);
    check_linear_attention(n, {false, true, false, true, true}, *device);
    check_linear_attention(n, {true, false, true, true, false}, *device);
    check_linear_attention(n, {true, true, true, false, true}, *device);
    check_linear_attention(n, {false, false, true, true, true}, *device);
  }
}

TEST_CASE("a GPU's delta rule is the CPU's", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const Sizes& n : kSizes) {
    INFO("T " << n.T << ", K " << n.K << ", V " << n.V);
    check_delta_rule(n, false, false, *device);
    check_delta_rule(n, true, true, *device);
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

TEST_CASE("a GPU's softmax attention is the CPU's, with windows, documents and a past", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const Sizes& n : kSizes) {
    if (n.K > 300) continue;  // more shared memory in F64 than there is
    INFO("T " << n.T << ", K " << n.K << ", V " << n.V);
    check_attention(n, 0, 0, false, *device);
    check_attention(n, 9, 0, true, *device);
    check_attention(n, 33, 20, false, *device);
    check_attention(n, 3, 7, true, *device);
  }
  for (const int32_t used : {0, 1, 40, 299}) {
    for (const int64_t window : {0, 24}) {
      INFO(used << " entries, window " << window);
      check_case({"softmax_attention_step",
                  "AAAI",
                  {floats({2, 1, 3, 20}, 1), floats({2, 1, 3, 20}, 2), floats({2, 1, 3, 36}, 3),
                   Tensor::of({2, 1}, std::vector<int32_t>{used, used / 2})},
                  "AAAI",
                  {floats({2, 1, 3, 36}, 4), floats({2, 300, 3, 20}, 5), floats({2, 300, 3, 36}, 6),
                   Tensor::of({1}, std::vector<int32_t>{used})},
                  [=](const auto& on, const auto& in, const auto& out) {
                    on.softmax_attention_step({.q = in[0],
                                               .k = in[1],
                                               .v = in[2],
                                               .keys = out[1],
                                               .values = out[2],
                                               .used = out[3],
                                               .positions = in[3],
                                               .window = window,
                                               .scale = 0.2},
                                              out[0]);
                  },
                  5e-6},
                 *device);
    }
  }
}

TEST_CASE("a GPU's safe exponential is the CPU's, through every maximum", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const Sizes& n : kSizes) {
    const Shape shape = {n.B, n.T, n.H, n.K}, rows = {n.B, n.T, n.H}, heads = {n.B, n.H};
    // Some elements equal, so that ties are met.
    Tensor z = floats(shape, 1, 2);
    for (int64_t i = 0; i < z.numel(); i += 5) z.data<float>()[i] = 3;
    const Tensor m0 = floats(heads, 2, 4), reset = random_mask({n.B, n.T}, 3, 0.06);
    const Tensor d_features = floats(shape, 4), d_rho = floats(rows, 5), d_m = floats(heads, 6);
    for (const Maximum maximum : {Maximum::Running, Maximum::Sequence, Maximum::Token}) {
      const bool carries = maximum != Maximum::Token;
      for (const bool seen : {false, true}) {
        if (seen && !carries) continue;
        INFO("T " << n.T << ", K " << n.K << ", maximum " << static_cast<int>(maximum) << seen);
        const Tensor before = seen ? m0 : Tensor{}, resets = seen ? reset : Tensor{};
        const Tensor rho = carries ? d_rho : Tensor{}, last = carries ? d_m : Tensor{};
        const Tensor places = Tensor::zeros(rows, DType::I32);
        const auto args = [=](const Tensors& in) {
          return SafeExpArgs{in[0], in[1], in[2], maximum, 0.7};
        };
        check_case({"safe_exp",
                    "SSI",
                    {z, before, resets},
                    "ASSI",
                    {d_features, rho, last, places},
                    [=](const auto& on, const auto& in, const auto& out) {
                      SafeExpResult result = {out[0], out[1], out[2], out[3]};
                      on.safe_exp(args(in), result);
                    },
                    3e-6},
                   *device);
        check_case({"safe_exp_backward",
                    "SSIASS",
                    {z, before, resets, d_features, rho, last},
                    "SS",
                    {z, before},
                    [=](const auto& on, const auto& in, const auto& out) {
                      const Tensor like = in[3];
                      const auto empty = [&](const Tensor& x) {
                        return x.defined() ? Tensor::empty_like(x) : Tensor{};
                      };
                      SafeExpResult result = {Tensor::empty_like(like), empty(in[4]), empty(in[5]),
                                              Tensor::empty(rows, DType::I32, like.device())};
                      on.safe_exp(args(in), result);
                      on.safe_exp_backward(args(in), result, in[3], in[4], in[5], {out[0], true},
                                           {out[1], out[1].defined()});
                    },
                    1e-5,
                    1e-2,
                    1e-2},
                   *device);
      }
    }
  }
}

TEST_CASE("a GPU's losses and their gradients are the CPU's", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const auto& [R, D, vocab] : std::vector<std::array<int64_t, 3>>{
           {1, 8, 3},
           {33, 24, 50},
           {130, 64, 1001},
           {2500, 16, 257},
           {300, 32, 50'304},
           {20, 16, 100'003},
           {7, 8, 130'001}}) {  // the last two: rows that no block holds
    INFO(R << " rows, " << vocab << " ids");
    Tensor targets = random_ids({R}, 1, vocab);
    for (int64_t i = 3; i < R; i += 11) targets.data<int32_t>()[i] = -1;
    const Tensor hidden = floats({R, D}, 2), weight = floats({vocab, D}, 3, 0.3);
    const double scale = 1.0 / static_cast<double>(R);
    const Tensor losses = Tensor::zeros({R}, DType::F32);
    check_case({"cross_entropy",
                "AAI",
                {hidden, weight, targets},
                "SAS",
                {losses, hidden, weight},
                [=](const auto& on, const auto& in, const auto& out) {
                  on.cross_entropy({in[0], in[1], in[2], scale}, out[0], out[1], out[2]);
                },
                1e-5,
                1e-2,
                1e-2},
               *device);
    check_case({"losses alone",
                "AAI",
                {hidden, weight, targets},
                "S",
                {losses},
                [=](const auto& on, const auto& in, const auto& out) {
                  on.cross_entropy({in[0], in[1], in[2], scale}, out[0], {}, {});
                },
                1e-5},
               *device);
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
    for (const bool has_bias : {false, true}) {
      check_case({"head_linear",
                  "AAS",
                  {x, weight, has_bias ? bias : Tensor{}},
                  "S",
                  {d_y},
                  [](const auto& on, const auto& in, const auto& out) {
                    on.head_linear({in[0], in[1], in[2]}, out[0]);
                  },
                  1e-5},
                 *device);
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
