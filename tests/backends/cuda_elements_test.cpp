// The CUDA backend's kernels of independent elements, and sums over all of them, beside the CPU's.

#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "tests/backends/cuda_support.h"

namespace regla::test {

TEST_CASE("a GPU's gates and feature maps of elements are the CPU's", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  const Shape shape = {301, 67};  // no multiple of what is loaded at once
  const Tensor x = floats(shape, 1, 3), y = floats(shape, 2), before = floats(shape, 3);
  const auto forward = [&](const char* name, auto member) {
    check_case(
        {name,
         "A",
         {x},
         "A",
         {before},
         [=](const auto& on, const auto& in, const auto& out) { (on.*member)(in[0], out[0]); }},
        *device);
  };
  const auto backward = [&](const char* name, auto member) {
    for (const bool adds : {false, true}) {
      check_case({name,
                  "AA",
                  {x, y},
                  "A",
                  {before},
                  [=](const auto& on, const auto& in, const auto& out) {
                    (on.*member)(in[0], in[1], {out[0], adds});
                  }},
                 *device);
    }
  };
  forward("sigmoid", &KernelTable::sigmoid);
  forward("log_sigmoid", &KernelTable::log_sigmoid);
  forward("relu", &KernelTable::relu);
  forward("elu_plus_one", &KernelTable::elu_plus_one);
  backward("sigmoid_backward", &KernelTable::sigmoid_backward);
  backward("log_sigmoid_backward", &KernelTable::log_sigmoid_backward);
  backward("relu_backward", &KernelTable::relu_backward);
  backward("elu_plus_one_backward", &KernelTable::elu_plus_one_backward);
}

TEST_CASE("a GPU's gates of two inputs are the CPU's", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  const Shape shape = {77, 130};
  const Tensor x = floats(shape, 1, 4), z = floats(shape, 2, 4), d = floats(shape, 3);
  const Tensor first = floats(shape, 4), second = floats(shape, 5);
  check_case({"refined_gate",
              "SS",
              {x, z},
              "A",
              {first},
              [](const auto& on, const auto& in, const auto& out) {
                on.refined_gate(in[0], in[1], out[0]);
              }},
             *device);
  check_case({"swish_gate",
              "AA",
              {x, z},
              "A",
              {first},
              [](const auto& on, const auto& in, const auto& out) {
                on.swish_gate(in[0], in[1], out[0]);
              }},
             *device);
  for (const bool adds : {false, true}) {
    check_case({"refined_gate_backward",
                "SSA",
                {x, z, d},
                "SS",
                {first, second},
                [=](const auto& on, const auto& in, const auto& out) {
                  on.refined_gate_backward(in[0], in[1], in[2], {{{as_rows(out[0]), adds}}, {}},
                                           {{{as_rows(out[1]), !adds}}, {}});
                }},
               *device);
    check_case({"swish_gate_backward",
                "AAA",
                {x, z, d},
                "AA",
                {first, second},
                [=](const auto& on, const auto& in, const auto& out) {
                  on.swish_gate_backward(in[0], in[1], in[2], {out[0], adds}, {out[1], adds});
                }},
               *device);
  }
  check_case({"one gradient alone",
              "AAA",
              {x, z, d},
              "A",
              {second},
              [](const auto& on, const auto& in, const auto& out) {
                on.swish_gate_backward(in[0], in[1], in[2], {}, {out[0], false});
              }},
             *device);
}

TEST_CASE("a GPU adds, scales and converts on the way", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  const Tensor x = floats({1001, 3}, 1), y = floats({1001, 3}, 2);
  check_case(
      {"add",
       "SA",
       {x, y},
       "S",
       {y},
       [](const auto& on, const auto& in, const auto& out) { on.add(in[0], in[1], out[0]); }},
      *device);
  check_case({"scale_by",
              "AD",
              {x, Tensor::full({1}, 0.3, DType::F32)},
              "A",
              {y},
              [](const auto& on, const auto& in, const auto& out) {
                on.scale_by(in[0], in[1], {out[0], false});
              }},
             *device);
  check_case({"accumulate",
              "A",
              {x},
              "S",
              {y},
              [](const auto& on, const auto& in, const auto& out) {
                on.accumulate(in[0], -0.7, {out[0], true});
              }},
             *device);
  check_case({"slices that begin anywhere",
              "A",
              {x},
              "A",
              {y},
              [](const auto& on, const auto& in, const auto& out) {
                on.accumulate(in[0].slice(1, 1000), 2, {out[0].slice(2, 1001), false});
              }},
             *device);
}

TEST_CASE("a GPU's sums over all elements are the CPU's", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const int64_t count : {1, 1000, 3'000'001}) {
    const Tensor x = floats({count}, 7), total = Tensor::zeros({1}, DType::F32);
    check_case(
        {"sums_of_squares",
         "S",
         {x},
         "D",
         {total},
         [](const auto& on, const auto& in, const auto& out) { on.sums_of_squares(in, out[0]); },
         1e-12},
        *device);
    for (const double broken : {1.0, HUGE_VAL, std::nan("")}) {
      Tensor values = x.clone();
      values.data<float>()[count / 2] = static_cast<float>(broken);
      check_case(
          {"is_finite",
           "A",
           {values},
           "I",
           {Tensor::zeros({1}, DType::I32)},
           [](const auto& on, const auto& in, const auto& out) { on.is_finite(in[0], out[0]); },
           0},
          *device);
    }
  }
}

TEST_CASE("a GPU drops what the CPU drops", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  const Tensor x = floats({203, 31}, 1), residual = floats({203, 31}, 2);
  const Tensor step = Tensor::of({1}, std::vector<int32_t>{70'000});
  for (const int64_t first : {0, 8, 1027}) {
    for (const bool adds : {false, true}) {
      check_case({"dropout",
                  "AI",
                  {x, step},
                  "A",
                  {residual},
                  [=](const auto& on, const auto& in, const auto& out) {
                    on.dropout({.x = in[0],
                                .residual = {},
                                .step = in[1],
                                .rate = 0.3,
                                .seed = 5,
                                .place = 11,
                                .first = first},
                               {out[0], adds});
                  }},
                 *device);
    }
    check_case({"add_dropout",
                "AS",
                {x, residual},
                "S",
                {x},
                [=](const auto& on, const auto& in, const auto& out) {
                  on.dropout({.x = in[0],
                              .residual = in[1],
                              .step = {},
                              .rate = 0.3,
                              .seed = 5,
                              .place = 11,
                              .first = first},
                             {out[0], false});
                }},
               *device);
  }
}

TEST_CASE("a GPU drops and norms in one pass as the CPU does in two", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  const Tensor step = Tensor::of({1}, std::vector<int32_t>{70'000});
  struct Case {
    int64_t N, first;
    double rate;
  };
  for (const auto& [N, first, rate] : std::vector<Case>{{768, 0, 0.1},
                                                        {768, 8, 0.5},
                                                        {256, 768, 0.3},
                                                        {1024, 4, 0.3},
                                                        {2048, 0, 0.3},
                                                        {768, 3, 0.3},
                                                        {768, 0, 0},
                                                        {300, 0, 0.3},
                                                        {33, 1, 0.3}}) {
    constexpr int64_t R = 301;
    INFO("N " << N << ", first " << first << ", rate " << rate);
    const Tensor x = floats({R, N}, 1), residual = floats({R, N}, 2), rows = floats({R}, 3);
    const Tensor gain = floats({N}, 4), bias = floats({N}, 5), d_y = floats({R, N}, 6);
    const auto drop = [=, n = first, p = rate](const Tensors& in) {
      return DropoutArgs{.x = in[0],
                         .residual = in[1],
                         .step = in[2],
                         .rate = p,
                         .seed = 5,
                         .place = 11,
                         .first = n};
    };
    const auto norm = [](const Tensor& sum, const Tensors& in) {
      return NormArgs{.x = sum, .gain = in[3], .bias = in[4], .epsilon = 1e-5, .center = true};
    };
    check_case({"dropout_norm",
                "ASISS",
                {x, residual, step, gain, bias},
                "SASS",
                {x, x, rows, rows},
                [=](const auto& on, const auto& in, const auto& out) {
                  DropoutNormResult result = {out[1], out[2], out[3], {}};
                  on.dropout_norm(drop(in), norm(out[0], in), result);
                },
                5e-6},
               *device);
    for (const bool adds : {false, true}) {
      check_case({"dropout_norm_backward",
                  "ASISSA",
                  {x, residual, step, gain, bias, d_y},
                  "SASS",
                  {d_y, x, gain, bias},
                  [=](const auto& on, const auto& in, const auto& out) {
                    const auto empty = [&](const Tensor& like) { return Tensor::empty_like(like); };
                    const NormArgs normed = norm(empty(in[1]), in);
                    const Tensor mean = Tensor::empty({R}, in[1].dtype(), in[1].device());
                    DropoutNormResult result = {empty(in[0]), mean, empty(mean), {}};
                    on.dropout_norm(drop(in), normed, result);
                    DropoutArgs mask = drop(in);
                    mask.x = mask.residual = {};
                    on.dropout_norm_backward(mask, normed, result,
                                             {.d_y = in[5],
                                              .d_sum = {out[0], adds},
                                              .d_x = out[1],
                                              .d_gain = {out[2], adds},
                                              .d_bias = {out[3], adds}});
                  },
                  1e-5},
                 *device);
    }
  }
}

TEST_CASE("a GPU's gradients of GELU come with the sums of their columns", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const int64_t N : {1, 8, 33, 256, 3072}) {
    for (const bool tanh : {false, true}) {
      INFO("N " << N << ", tanh " << tanh);
      const Tensor x = floats({519, N}, 1, 2), d_y = floats({519, N}, 2), sums = floats({N}, 3);
      check_case({"gelu_backward",
                  "AA",
                  {x, d_y},
                  "AS",
                  {x, sums},
                  [=](const auto& on, const auto& in, const auto& out) {
                    on.gelu_backward(in[0], tanh, in[1], {{{out[0]}}, {out[1], true}});
                  },
                  1e-5},
                 *device);
    }
  }
}

TEST_CASE("a GPU turns pairs as the CPU does, at any position", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  Tensor positions = random_ids({3, 37}, 4, 200'000);
  for (const auto& [K, rotary] : std::vector<std::pair<int64_t, int64_t>>{{64, 64},
                                                                          {64, 16},
                                                                          {16, 16},
                                                                          {10, 6},
                                                                          {33, 6},
                                                                          {96, 96},
                                                                          {130, 70},
                                                                          {384, 128},
                                                                          {1100, 8}}) {
    const Tensor x = floats({3, 37, 5, K}, 1), before = floats({3, 37, 5, K}, 2);
    for (const bool inverse : {false, true}) {
      check_case(
          {"rope",
           "AI",
           {x, positions},
           "A",
           {before},
           [=, n = rotary](const auto& on, const auto& in, const auto& out) {
             on.rope({.x = in[0], .rotation = {in[1], n}, .inverse = inverse}, {out[0], inverse});
           },
           2e-6,
           4e-3,
           0,
           1e-9},
          *device);
    }
  }
}

TEST_CASE("a GPU winds positions as the CPU does", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const int64_t steps : {1, 31, 32, 33, 100, 1000}) {
    const Tensor start = random_ids({4}, 1, 1000), reset = random_mask({4, steps}, 2, 0.03);
    const Tensor positions = Tensor::zeros({4, steps}, DType::I32);
    const Tensor next = Tensor::zeros({4}, DType::I32);
    for (const bool carries : {false, true}) {
      for (const bool resets : {false, true}) {
        check_case({"positions",
                    "II",
                    {carries ? start : Tensor{}, resets ? reset : Tensor{}},
                    "II",
                    {positions, next},
                    [](const auto& on, const auto& in, const auto& out) {
                      on.positions(in[0], in[1], out[0], out[1]);
                    },
                    0},
                   *device);
      }
    }
    check_case(
        {"first_keys",
         "I",
         {random_ids({4, steps}, 3, 60)},
         "I",
         {positions},
         [](const auto& on, const auto& in, const auto& out) { on.first_keys(in[0], 17, out[0]); },
         0},
        *device);
  }
}

TEST_CASE("a GPU writes gradients beside others as it writes them alone", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  constexpr int64_t B = 2, T = 67, H = 3, K = 64, N = H * K, kFirst = 24, kWidth = kFirst + N + 8;
  const auto tensor = [&](const Shape& shape, DType type, uint64_t seed) {
    return converted(floats(shape, seed), type).on(*device);
  };
  const Shape shape = {B, T, N};
  using Call = std::function<void(const KernelTable&, const LinearSink&)>;
  std::vector<std::pair<std::string, Call>> calls;
  for (const DType type : {DType::BF16, DType::F32}) {
    const Tensor x = tensor(shape, type, 1), z = tensor(shape, type, 2), d = tensor(shape, type, 3);
    calls.emplace_back("gelu", [=](const KernelTable& on, const LinearSink& to) {
      on.gelu_backward(x, false, d, to);
    });
    calls.emplace_back("refined_gate, first", [=](const KernelTable& on, const LinearSink& to) {
      on.refined_gate_backward(x, z, d, to, {});
    });
    calls.emplace_back("refined_gate, second", [=](const KernelTable& on, const LinearSink& to) {
      on.refined_gate_backward(x, z, d, {}, to);
    });
    for (const Maximum maximum : {Maximum::Token, Maximum::Running}) {
      const Shape heads = {B, T, H, K}, rows = {B, T, H};
      const Tensor positions = random_ids({B, T}, 4, 900).on(*device);
      const bool carries = maximum != Maximum::Token;
      const SafeExpArgs args = {tensor(heads, type, 5), {positions, K}, {}, {}, maximum, 1};
      SafeExpResult result = {Tensor::empty(heads, type, *device),
                              carries ? Tensor::empty(rows, DType::F32, *device) : Tensor{},
                              carries ? Tensor::empty({B, H}, DType::F32, *device) : Tensor{},
                              Tensor::empty(rows, DType::I32, *device)};
      kernels(*device).safe_exp(args, result);
      const Tensor d_features = tensor(heads, type, 6);
      calls.emplace_back("safe_exp", [=](const KernelTable& on, const LinearSink& to) {
        on.safe_exp_backward(args, result, d_features, {}, {}, to.rows, {});
        Tensor(to.sums.tensor).fill(0);
      });
    }
  }
  for (const auto& [name, call] : calls) {
    const auto sums = [&] { return Tensor::zeros({N}, DType::F32, *device); };
    const Tensor alone = Tensor::empty({B * T, N}, DType::BF16, *device), sums_alone = sums();
    const Tensor all = Tensor::full({B * T, kWidth}, 7, DType::BF16, *device), sums_beside = sums();
    call(kernels(*device), {{{alone}}, {sums_alone}});
    call(kernels(*device), {{{all}, kFirst}, {sums_beside}});
    const std::vector<double> expected = alone.values(), got = all.values();
    int64_t wrong = 0;
    for (int64_t r = 0; r < B * T; ++r) {
      for (int64_t c = 0; c < kWidth; ++c) {
        const bool is_inside = c >= kFirst && c < kFirst + N;
        const double right = is_inside ? expected[static_cast<size_t>(r * N + c - kFirst)] : 7;
        wrong += got[static_cast<size_t>(r * kWidth + c)] == right ? 0 : 1;
      }
    }
    INFO(name);
    CHECK(wrong == 0);
    CHECK(sums_beside.values() == sums_alone.values());
  }
}

}  // namespace regla::test
