// The CUDA backend's kernels that sum over rows or columns, beside the CPU's.

#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "tests/backends/cuda_support.h"

namespace regla::test {
namespace {

/// Lengths of rows: shared by few lanes, by a warp, by a block; longer than registers hold; odd.
const std::vector<int64_t> kLengths = {1, 4, 10, 64, 96, 257, 768, 1001, 4100};

/// Norms and their gradients, rows of N with G groups.
void check_norms(int64_t N, int64_t G, bool center, bool has_bias, Device device) {
  const int64_t R = 37 * G;
  const Tensor x = floats({R, N}, 1, 2), gain = floats({G, N}, 2), d_y = floats({R, N}, 3);
  const Tensor bias = has_bias ? floats({G, N}, 4) : Tensor{};
  const auto args = [=](const Tensors& in) {
    return NormArgs{.x = in[0], .gain = in[1], .bias = in[2], .epsilon = 1e-5, .center = center};
  };
  check_case({"norm",
              "SSS",
              {x, gain, bias},
              "ASS",
              {d_y, Tensor::zeros({R}, DType::F32), Tensor::zeros({R}, DType::F32)},
              [=](const auto& on, const auto& in, const auto& out) {
                on.norm(args(in), out[0], out[1], out[2]);
              },
              5e-6},
             device);
  if (N == 1) return;  // the gradient is 0, up to what rounding leaves
  for (const bool adds : {false, true}) {
    check_case({"norm_backward",
                "ASSA",
                {x, gain, bias, d_y},
                "SSS",
                {d_y, gain, bias},
                [=](const auto& on, const auto& in, const auto& out) {
                  const Tensor y = Tensor::empty_like(in[0]);
                  const Tensor mean = beside(y, {R}), inverse = beside(y, {R});
                  on.norm(args(in), y, mean, inverse);
                  on.norm_backward(args(in), mean, inverse, in[3], {out[0], adds}, {out[1], adds},
                                   {out[2], adds});
                },
                1e-5},
               device);
  }
}

/// Three rows with ids that were seen, and with more of them.
KernelCase penalty_of(int64_t vocab, bool has_ids) {
  std::vector<int32_t> seen;
  for (int64_t i = 0; i < 3 * vocab; ++i) seen.push_back(i % 7 == 0 ? 1 : 0);
  const auto last = static_cast<int32_t>(vocab) - 1;
  const Tensor ids = has_ids ? Tensor::of({3}, std::vector<int32_t>{last, -1, last / 2}) : Tensor{};
  return {"penalise",
          "SI",
          {floats({3, vocab}, 1), ids},
          "SI",
          {floats({3, vocab}, 2), Tensor::of({3, vocab}, seen)},
          [](const auto& on, const auto& in, const auto& out) {
            on.penalise({in[0], in[1], out[1], 1.3}, out[0]);
          },
          0};
}

/// With ties, with one that is not finite, and in another row one among the last 8, which nobody
/// draws.
Tensor strange_scores(int64_t rows, int64_t vocab) {
  Tensor scores = floats({rows, vocab}, 1, 3);
  auto* score = scores.data<float>();
  for (int64_t i = 7; i < scores.numel(); i += 10) score[i] = 8;
  score[2 * vocab + 50] = NAN;
  score[3 * vocab + vocab - 8] = INFINITY;
  return scores;
}

/// A draw from each row, whose ids must be the CPU's.
KernelCase draws_of(const SampleArgs& draw) {
  return {"sample",
          "SI",
          {draw.scores, draw.draw},
          "I",
          {Tensor::zeros({draw.scores.dim(0)}, DType::I32)},
          [draw](const auto& on, const auto& in, const auto& out) {
            SampleArgs args = draw;
            args.scores = in[0];
            args.draw = in[1];
            on.sample(args, out[0]);
          },
          0};
}

}  // namespace

TEST_CASE("a GPU's norms are the CPU's", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const int64_t N : kLengths) {
    INFO(N);
    check_norms(N, 1, true, true, *device);
  }
  for (const int64_t N : {256, 512, 1024, 2048}) check_norms(N, 1, true, true, *device);
  check_norms(33, 3, true, false, *device);
  check_norms(768, 1, false, false, *device);
  // Heads: several in a load, one in a load, more of them than a warp holds, none of its parts.
  for (const auto& [N, G] : std::vector<std::pair<int64_t, int64_t>>{
           {64, 12}, {64, 4}, {64, 16}, {32, 16}, {128, 6}, {256, 3}, {64, 20}, {96, 8}}) {
    INFO(G << " heads of " << N);
    check_norms(N, G, false, false, *device);
    check_norms(N, G, true, true, *device);
  }
}

TEST_CASE("a GPU's gradients of a norm are the same bits again", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  const int64_t R = 5000, N = 768;
  const KernelTable& on = kernels(*device);
  const Tensor x = floats({R, N}, 1).on(*device), gain = floats({1, N}, 2).on(*device);
  const Tensor d_y = converted(floats({R, N}, 3), DType::BF16).on(*device);
  const Tensor y = Tensor::empty_like(d_y), mean = Tensor::zeros({R}, DType::F32, *device);
  const Tensor inverse = Tensor::empty_like(mean);
  const NormArgs args = {.x = x, .gain = gain, .bias = gain, .epsilon = 1e-5, .center = true};
  on.norm(args, y, mean, inverse);
  const auto gradients = [&] {
    const Tensor d_x = Tensor::empty_like(x), d_gain = Tensor::empty_like(gain);
    const Tensor d_bias = Tensor::empty_like(gain);
    on.norm_backward(args, mean, inverse, d_y, {d_x, false}, {d_gain, false}, {d_bias, false});
    return Tensors{d_x.on(Device{}), d_gain.on(Device{}), d_bias.on(Device{})};
  };
  const Tensors once = gradients(), again = gradients();
  for (size_t i = 0; i < once.size(); ++i) CHECK(same_bits(once[i], again[i]));
}

TEST_CASE("a GPU's softmax is the CPU's", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const int64_t N : kLengths) {
    INFO(N);
    const Tensor x = floats({41, N}, 1, 5), d = floats({41, N}, 2), y = floats({41, N}, 3);
    check_case({"softmax",
                "S",
                {x},
                "A",
                {y},
                [](const auto& on, const auto& in, const auto& out) { on.softmax(in[0], out[0]); },
                5e-6},
               *device);
    check_case({"softmax_backward",
                "AA",
                {y, d},
                "S",
                {x},
                [](const auto& on, const auto& in, const auto& out) {
                  on.softmax_backward(in[0], in[1], {out[0], true});
                },
                5e-6},
               *device);
    for (const bool joint : {false, true}) {
      const Tensor twice = floats({41, 2 * N}, 4), d_twice = floats({41, 2 * N}, 5);
      check_case({"hedgehog",
                  "S",
                  {x},
                  "A",
                  {twice},
                  [=](const auto& on, const auto& in, const auto& out) {
                    on.hedgehog(in[0], joint, out[0]);
                  },
                  5e-6},
                 *device);
      check_case({"hedgehog_backward",
                  "AA",
                  {twice, d_twice},
                  "S",
                  {x},
                  [=](const auto& on, const auto& in, const auto& out) {
                    on.hedgehog_backward(in[0], joint, in[1], {out[0], false});
                  },
                  5e-6},
                 *device);
    }
  }
}

TEST_CASE("a GPU's random and parameter-free features are the CPU's", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const int64_t N : {3, 16, 64, 128, 130}) {
    INFO(N);
    const int64_t R = 45, F = N == 16 ? 24 : N + 5;
    const Tensor x = floats({R, N}, 1), z = floats({R, F}, 2), d_z = floats({R, F}, 3);
    const Tensor twice = floats({R, 2 * N}, 4), d_twice = floats({R, 2 * N}, 5);
    check_case({"favor_exponent",
                "SS",
                {z, x},
                "S",
                {d_z},
                [](const auto& on, const auto& in, const auto& out) {
                  on.favor_exponent(in[0], in[1], out[0]);
                }},
               *device);
    check_case({"favor_exponent_backward",
                "AS",
                {x, d_z},
                "S",
                {x},
                [](const auto& on, const auto& in, const auto& out) {
                  on.favor_exponent_backward(in[0], in[1], {out[0], true});
                },
                5e-6},
               *device);
    check_case({"cos_sin",
                "S",
                {floats({R, N}, 6, 20)},
                "A",
                {twice},
                [](const auto& on, const auto& in, const auto& out) { on.cos_sin(in[0], out[0]); }},
               *device);
    check_case({"cos_sin_backward",
                "AA",
                {twice, d_twice},
                "S",
                {x},
                [](const auto& on, const auto& in, const auto& out) {
                  on.cos_sin_backward(in[0], in[1], {out[0], false});
                }},
               *device);
    for (const int64_t nu : {1, 3, 5}) {
      const Tensor y = floats({R, 2 * N * nu}, 7), d_y = floats({R, 2 * N * nu}, 8);
      check_case(
          {"dpfp",
           "A",
           {x},
           "A",
           {y},
           [=](const auto& on, const auto& in, const auto& out) { on.dpfp(in[0], nu, out[0]); },
           5e-6},
          *device);
      check_case({"dpfp_backward",
                  "AA",
                  {x, d_y},
                  "S",
                  {x},
                  [=](const auto& on, const auto& in, const auto& out) {
                    const Tensor features = Tensor::empty_like(in[1]);
                    on.dpfp(in[0], nu, features);
                    on.dpfp_backward(in[0], nu, features, in[1], {out[0], false});
                  },
                  1e-5},
                 *device);
    }
  }
}

TEST_CASE("a GPU's write gates and sum norms are the CPU's", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const int64_t N : {5, 64, 129}) {
    INFO(N);
    const int64_t R = 70;
    const Tensor x = floats({R, N}, 1), d = floats({R, N}, 2), more = floats({R, N + 1}, 3);
    for (const int64_t gates : {int64_t{1}, N}) {
      Tensor log_g = spaced_tensor({R, gates}, DType::F32, 4, -9, 0);
      check_case({"write_gate",
                  "AS",
                  {x, log_g},
                  "A",
                  {d},
                  [](const auto& on, const auto& in, const auto& out) {
                    on.write_gate(in[0], in[1], out[0]);
                  }},
                 *device);
      check_case({"write_gate_backward",
                  "ASA",
                  {x, log_g, d},
                  "AS",
                  {x, log_g},
                  [](const auto& on, const auto& in, const auto& out) {
                    on.write_gate_backward(in[0], in[1], in[2], {out[0], false}, {out[1], true});
                  },
                  5e-6},
                 *device);
    }
    check_case(
        {"append_one",
         "A",
         {x},
         "A",
         {more},
         [](const auto& on, const auto& in, const auto& out) { on.append_one(in[0], out[0]); },
         0},
        *device);
    check_case({"append_one_backward",
                "A",
                {more},
                "A",
                {x},
                [](const auto& on, const auto& in, const auto& out) {
                  on.append_one_backward(in[0], {out[0], true});
                }},
               *device);
    for (const bool changes_sign : {false, true}) {
      check_case({"sum_norm",
                  "A",
                  {floats({R, N + 1}, 5, 3)},
                  "A",
                  {x},
                  [=](const auto& on, const auto& in, const auto& out) {
                    on.sum_norm(in[0], changes_sign, out[0]);
                  }},
                 *device);
      check_case({"sum_norm_backward",
                  "AAA",
                  {floats({R, N + 1}, 5, 3), x, d},
                  "A",
                  {more},
                  [=](const auto& on, const auto& in, const auto& out) {
                    on.sum_norm_backward(in[0], changes_sign, in[1], in[2], {out[0], false});
                  },
                  5e-6},
                 *device);
    }
  }
}

TEST_CASE("a GPU's sums of columns are the CPU's", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const auto& [R, N] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 1}, {3, 768}, {5000, 7}, {40'000, 132}, {257, 3072}}) {
    INFO(R << " x " << N);
    check_case({"column_sums",
                "A",
                {floats({R, N}, 1)},
                "S",
                {floats({N}, 2)},
                [](const auto& on, const auto& in, const auto& out) {
                  on.column_sums(in[0], {out[0], true});
                },
                5e-6},
               *device);
  }
}

TEST_CASE("a GPU looks up rows and adds gradients to them in the order of tokens", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  // Few rows: long runs of tokens of one id; many: most ids occur once.
  for (const int64_t vocab : {1, 3, 50, 5003}) {
    for (const auto& [count, D] :
         std::vector<std::pair<int64_t, int64_t>>{{1, 5}, {31, 64}, {1000, 68}, {2049, 770}}) {
      INFO(vocab << " rows, " << count << " tokens of " << D);
      const Tensor ids = random_ids({count}, 1, vocab);
      const Tensor table = floats({vocab, D}, 2), y = floats({count, D}, 3);
      check_case({"embedding",
                  "IA",
                  {ids, table},
                  "S",
                  {y},
                  [](const auto& on, const auto& in, const auto& out) {
                    on.embedding(in[0], in[1], out[0]);
                  },
                  0},
                 *device);
      for (const bool adds : {false, true}) {
        check_case({"embedding_backward",
                    "IS",
                    {ids, y},
                    "S",
                    {table},
                    [=](const auto& on, const auto& in, const auto& out) {
                      on.embedding_backward(in[0], in[1], {out[0], adds});
                    },
                    1e-5},
                   *device);
      }
    }
  }
}

TEST_CASE("a GPU draws from large vocabularies what the CPU draws", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  constexpr int64_t kIds = 50304;
  // Spread out; far apart; in few values; all alike: bins that hold few ids, many, and all.
  std::vector<Tensor> rows = {floats({2, kIds}, 1, 2), floats({2, kIds}, 2, 1e4),
                              floats({2, kIds}, 3, 3), Tensor::full({2, kIds}, 1.5, DType::F32)};
  for (int64_t i = 0; i < 2 * kIds; ++i) {
    auto& score = rows[2].data<float>()[i];
    score = std::floor(score);
  }
  for (size_t kind = 0; kind < rows.size(); ++kind) {
    for (const double temperature : {0.0, 0.8, 50.0}) {
      for (const int64_t top_k : {0, 50, 30000}) {
        for (const double top_p : {1.0, 0.9}) {
          INFO("kind " << kind << ", temperature " << temperature << ", top_k " << top_k
                       << ", top_p " << top_p);
          for (const double min_p : {0.0, 0.3}) {
            check_case(draws_of({.scores = rows[kind],
                                 .draw = Tensor::full({1}, 5, DType::I32),
                                 .temperature = temperature,
                                 .top_k = top_k,
                                 .top_p = top_p,
                                 .min_p = min_p,
                                 .seed = 3,
                                 .vocab = kIds - 47,
                                 .first_row = top_k}),
                       DType::F32, *device);
          }
        }
      }
    }
  }
}

TEST_CASE("a GPU penalises the ids that were seen", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const int64_t vocab : {1, 259, 50304}) {
    for (const bool has_ids : {false, true}) check_case(penalty_of(vocab, has_ids), *device);
  }
}

TEST_CASE("a GPU draws the ids that the CPU draws", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  const Tensor scores = strange_scores(5, 1003);
  for (const double temperature : {0.0, 0.7}) {
    for (const int64_t top_k : {0, 1, 40}) {
      for (const double top_p : {1.0, 0.6}) {
        for (const int32_t number : {0, 3, 17}) {
          INFO(temperature << ", " << top_k << ", " << top_p << ", draw " << number);
          check_case(draws_of({.scores = scores,
                               .draw = Tensor::of({1}, std::vector<int32_t>{number}),
                               .temperature = temperature,
                               .top_k = top_k,
                               .top_p = top_p,
                               .min_p = number == 3    ? 0.1
                                        : number == 17 ? 1
                                                       : 0,
                               .seed = 9,
                               .vocab = 990,
                               .first_row = number}),
                     *device);
        }
      }
    }
  }
}

TEST_CASE("kernels that choose ids stay within their memory on a GPU", "[cuda][sanitizer]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  check_case(penalty_of(259, true), DType::F32, *device);
  SampleArgs draw = {.scores = strange_scores(5, 259),
                     .draw = Tensor::of({1}, std::vector<int32_t>{3}),
                     .temperature = 0,
                     .top_k = 0,
                     .top_p = 1,
                     .min_p = 0,
                     .seed = 9,
                     .vocab = 250};
  check_case(draws_of(draw), DType::F32, *device);
  draw.temperature = 0.7;
  check_case(draws_of(draw), DType::F32, *device);
  draw.top_k = 40;
  draw.top_p = 0.6;
  draw.min_p = 0.1;
  check_case(draws_of(draw), DType::F32, *device);
}

}  // namespace regla::test
