// What a GPU does around the products of an update: gradients of layers that read the same input,
// one step of many weights, and the times of both.

#include <cmath>
#include <optional>
#include <vector>

#include "backends/backend.h"
#include "tests/backends/cuda_support.h"

namespace regla::test {
namespace {

/// The tensors of one AdamW step: of all kinds of sizes, more of them than one launch takes, some
/// where no vector may be loaded; and what they are afterwards.
struct ManyWeights {
  std::vector<AdamWArgs::Weight> weights;

  ManyWeights(DType dtype, Device device) {
    for (uint64_t i = 0; i < 801; ++i) {
      const int64_t count =
          i % 100 == 0 ? 40'000 + static_cast<int64_t>(i) : static_cast<int64_t>(i % 11) * 5;
      const int64_t skipped = i % 3 == 0 ? 1 : 0;
      const auto numbers = [&](uint64_t seed) {
        Tensor x = normal_tensor({count + 1}, dtype, 4 * i + seed);
        if (seed == 3) kernels({}).sigmoid(x.clone(), x);  // a mean of squares
        return x.on(device).slice(skipped, skipped + count);
      };
      const bool copied = dtype == DType::F32 && i % 2 == 0;
      weights.push_back({.value = numbers(0),
                         .gradient = numbers(1),
                         .m = numbers(2),
                         .v = numbers(3),
                         .copy = copied ? Tensor::zeros({count}, DType::BF16, device) : Tensor{},
                         .decay = i % 2 == 0 ? 0.1 : 0});
    }
  }

  void step(Device device) const {
    kernels(device).adamw({.weights = weights,
                           .rates = Tensor::of({3}, std::vector<double>{0.01, 0.2, 0.03}, device),
                           .factor = Tensor::full({1}, 0.5, DType::F64, device),
                           .beta1 = 0.9,
                           .beta2 = 0.99,
                           .epsilon = 1e-8});
  }
};

struct LinearSizes {
  int64_t rows, width;
  std::vector<int64_t> outputs;
};

/// Of layers that read the same x, all but the second with biases.
KernelCase linear_gradients_of(const LinearSizes& sizes, bool adds, bool wants_x) {
  KernelCase c;
  c.name = "linear_backward of " + std::to_string(sizes.rows) + " rows, adds " +
           std::to_string(adds) + ", wants d_x " + std::to_string(wants_x);
  c.in = {floats({sizes.rows, sizes.width}, 1)};
  c.in_types = "A";
  c.out = {floats(c.in[0].shape(), 2)};
  c.out_types = adds ? "S" : "A";
  for (size_t i = 0; i < sizes.outputs.size(); ++i) {
    const int64_t N = sizes.outputs[i];
    c.in.push_back(floats({sizes.rows, N}, 3 + 4 * i));
    c.in.push_back(floats({N, sizes.width}, 4 + 4 * i));
    c.in_types += i == 1 ? "SA" : "AA";
    c.out.push_back(floats({N, sizes.width}, 5 + 4 * i));
    c.out.push_back(i == 1 ? Tensor{} : floats({N}, 6 + 4 * i));
    c.out_types += "SS";
  }
  c.call = [=](const auto& on, const Tensors& x, const Tensors& y) {
    LinearGradients args = {.x = x[0], .parts = {}};
    for (size_t i = 1; i < x.size(); i += 2) {
      args.parts.push_back({x[i], x[i + 1], {y[i], adds}, {y[i + 1], adds}});
    }
    on.linear_backward(args, wants_x ? Sink{y[0], adds} : Sink{});
  };
  c.tolerance = 1e-5;
  c.narrow_sums = 4e-3;
  return c;
}

}  // namespace

TEST_CASE("a GPU's step of many weights and their sums of squares are the CPU's", "[cuda]") {
  const std::optional<Device> opened = gpu();
  if (!opened) return;
  for (const DType dtype : {DType::F32, DType::F64}) {
    const ManyWeights here(dtype, {}), there(dtype, *opened);
    here.step({});
    there.step(*opened);
    std::vector<Tensor> x_here, x_there;
    for (size_t i = 0; i < here.weights.size(); ++i) {
      INFO("weight " << i << ", " << name_of(dtype));
      const AdamWArgs::Weight &a = there.weights[i], &b = here.weights[i];
      x_here.push_back(i % 5 == 1 ? Tensor{} : b.gradient);
      x_there.push_back(i % 5 == 1 ? Tensor{} : a.gradient);
      if (b.value.numel() == 0) continue;
      const double tolerance = dtype == DType::F64 ? 1e-13 : 2e-6;
      CHECK(relative_error(a.value.on({}), b.value) <= tolerance);
      CHECK(relative_error(a.m.on({}), b.m) <= tolerance);
      CHECK(relative_error(a.v.on({}), b.v) <= tolerance);
      if (a.copy) CHECK(same_bits(a.copy.on({}), converted(a.value, DType::BF16).on({})));
    }
    const auto sums_of = [](const std::vector<Tensor>& x, Device device) {
      const Tensor sums = Tensor::full({static_cast<int64_t>(x.size())}, NAN, DType::F64, device);
      kernels(device).sums_of_squares(x, sums);
      return sums.values();
    };
    const std::vector<double> got = sums_of(x_there, *opened), expected = sums_of(x_here, {});
    for (size_t i = 0; i < got.size(); ++i) {
      INFO("sum " << i);
      CHECK(got[i] == Approx(expected[i]).epsilon(1e-12));
    }
    CHECK(sums_of({Tensor{}, Tensor{}}, *opened) == std::vector<double>{0, 0});
  }
}

TEST_CASE("a GPU's gradients of linear layers are the CPU's, one by one and together", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  // Together where all sizes allow packs; then odd ones, one layer, and no rows to speak of.
  for (const LinearSizes& sizes : std::vector<LinearSizes>{{131, 64, {32, 64, 8}},
                                                           {1, 8, {8, 16}},
                                                           {300, 264, {264, 264, 24}},
                                                           {131, 64, {32, 12}},
                                                           {63, 20, {20, 7}},
                                                           {65, 33, {16, 16}},
                                                           {70, 24, {40}}}) {
    for (const bool adds : {false, true}) {
      for (const bool wants_x : {true, false}) {
        check_case(linear_gradients_of(sizes, adds, wants_x), *device);
      }
    }
  }
}

TEST_CASE("a GPU's linear layers take gradients that lie side by side", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  constexpr int64_t R = 133, D = 72;
  const std::vector<int64_t> outputs = {40, 16, 256, 8};
  const auto narrow = [&](const Shape& shape, uint64_t seed) {
    return converted(floats(shape, seed), DType::BF16).on(*device);
  };
  const Tensor x = narrow({R, D}, 1), all = narrow({R, 320}, 2);
  // Which parts lie there and have their sums; the others come with a tensor of their own.
  for (const int there : {0b1111, 0b1010, 0b0001}) {
    Tensors weights, d_weights, d_biases;
    const Tensor below = floats({320, D}, 3).on(*device);
    LinearGradients joint = {.x = x, .side_by_side = all.clone(), .parts = {}};
    LinearGradients apart = {.x = x, .parts = {}};
    int64_t first = 0;
    for (size_t i = 0; i < outputs.size(); ++i) {
      const int64_t N = outputs[i];
      const bool is_there = (there >> i & 1) != 0;
      const Tensor d_y = Tensor::empty({R, N}, DType::BF16, *device);
      kernels(*device).copy_rows({all.reshape({R, 320, 1}), first, N, d_y.reshape({R, N, 1}), 0});
      const Tensor weight = narrow({N, D}, 4 + i), bias = floats({N}, 9 + i).on(*device);
      const Tensor d_weight = below.slice(first, first + N);
      const Sink sums = is_there && i == 3 ? Sink{} : Sink{bias, true};
      joint.parts.push_back({is_there ? Tensor{} : d_y, weight, {d_weight, true}, sums});
      apart.parts.push_back({d_y, weight, {d_weight.clone(), true}, {bias.clone(), true}});
      first += N;
    }
    const Tensor d_x = Tensor::empty_like(x), expected = Tensor::empty_like(x);
    kernels(*device).linear_backward(joint, {d_x});
    kernels(*device).linear_backward(apart, {expected});
    INFO("there: " << there);
    CHECK(d_x.values() == expected.values());
    for (size_t i = 0; i < outputs.size(); ++i) {
      INFO("part " << i);
      const LinearGradients::Part &a = joint.parts[i], &b = apart.parts[i];
      CHECK(relative_error(a.d_weight.tensor, b.d_weight.tensor) <= 1e-6);
      if (a.d_bias) CHECK(relative_error(a.d_bias.tensor, b.d_bias.tensor) <= 1e-6);
    }
  }
}

TEST_CASE("gradients of linear layers stay within their memory on a GPU", "[cuda][sanitizer]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const LinearSizes& sizes : std::vector<LinearSizes>{{35, 64, {32, 64, 8}}, {33, 20, {7}}}) {
    for (const bool adds : {false, true}) {
      check_case(linear_gradients_of(sizes, adds, true), DType::BF16, *device);
    }
  }
}

TEST_CASE("a GPU's clock tells how long what it notes in a routine takes, run by run", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  const std::unique_ptr<Clock> clock = make_clock(*device);
  const Tensor x = Tensor::full({64 << 20}, 1, DType::F32, *device), y = Tensor::empty_like(x);
  const Tensor small = x.slice(0, 1000);
  std::vector<int64_t> notes;
  Routine routine(*device, [&] {
    notes = {clock->note()};
    kernels(*device).accumulate(x, 2, {y});
    notes.push_back(clock->note());
    kernels(*device).accumulate(small, 2, {small});
    notes.push_back(clock->note());
  });
  for (int run = 0; run < 4; ++run) {
    const int64_t before = clock->note();
    routine.run();
    const int64_t after = clock->note();
    const double large = clock->seconds(notes[0], notes[1]);
    CHECK(large > 1e-5);  // half a gigabyte
    CHECK(clock->seconds(notes[1], notes[2]) < large);
    CHECK(clock->seconds(before, after) >= large);
    CHECK(clock->seconds(before, notes[0]) >= 0);  // of this run, not of the one before
  }
}

}  // namespace regla::test
