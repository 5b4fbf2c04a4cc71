// A GPU's kernels of a decoding step beside the CPU's, which are compositions.

#include "tests/backends/cuda_support.h"

namespace regla::test {
namespace {

struct StepSizes {
  int64_t R, D;
  std::vector<int64_t> widths;
};

/// Few rows and more, widths that packs of elements divide or not, rows that are held or are not.
const std::vector<StepSizes> kStepSizes = {{1, 768, {768, 768, 40, 3}},
                                           {1, 40, {7}},
                                           {1, 1032, {33, 8}},
                                           {1, 3072, {96}},
                                           {2, 768, {61, 16}},
                                           {2, 3072, {24, 5}},
                                           {3, 96, {17, 64}},
                                           {16, 256, {40}},
                                           {2, 1024, {40, 9}},
                                           {17, 768, {9, 24}},
                                           {32, 3072, {40}},
                                           {33, 96, {8}},
                                           {5, 37, {11}}};

void check_linear_step(const StepSizes& n, bool with_norm, Activation activation, bool adds,
                       DType weights, Device device) {
  const auto parts = static_cast<int64_t>(adds ? 1 : n.widths.size());
  KernelCase c;
  c.name = "linear_step of " + std::to_string(n.R) + " x " + std::to_string(n.D);
  c.in_types = "SSSS";
  const bool is_last = activation == Activation::None && !adds;
  c.in = {floats({n.R, n.D}, 1), floats({n.D}, 2), floats({n.D}, 3), floats({n.R, n.widths[0]}, 4)};
  const bool is_stored = weights == DType::BF16;  // beside F32
  for (int64_t i = 0; i < parts; ++i) {
    const int64_t N = n.widths[static_cast<size_t>(i)];
    const Tensor weight = floats({N, n.D}, 10 + static_cast<uint64_t>(i), 0.1);
    c.in.push_back(is_stored ? converted(weight, DType::BF16) : weight);
    c.in.push_back(floats({N}, 20 + static_cast<uint64_t>(i)));
    c.in_types += is_stored ? "-" : "A";
    c.in_types += is_last && i > 0 ? 'S' : 'A';
    c.out.push_back(floats({n.R, N}, 30));
    c.out_types += adds ? 'S' : i == 0 ? 'A' : 'S';
  }
  if (activation != Activation::None) {
    for (char& type : c.out_types) type = adds ? 'S' : 'A';
  }
  c.call = [=](const auto& on, const Tensors& in, const Tensors& out) {
    const DType A = is_stored ? DType::F32 : in[4].dtype();
    LinearStepArgs args = {.x = with_norm ? in[0] : converted(in[0], A),
                           .gain = with_norm ? in[1] : Tensor{},
                           .bias = with_norm ? in[2] : Tensor{},
                           .epsilon = 1e-5,
                           .residual = adds ? in[3] : Tensor{},
                           .parts = {},
                           .activation = activation,
                           .type = A};
    for (size_t i = 0; i < out.size(); ++i) {
      args.parts.push_back({in[4 + 2 * i], in[5 + 2 * i], out[i]});
    }
    on.linear_step(args);
  };
  c.tolerance = 3e-6;
  c.exact_tolerance = 1e-11;
  c.rounded = 5e-3;  // of x, where activations are narrow
  INFO("norm " << with_norm << ", adds " << adds << ", activation "
               << static_cast<int>(activation));
  if (is_stored) return check_case(c, DType::F32, device);
  check_case(c, device);
}

void check_regla_step(const HeadSizes& n, bool gated, int64_t rotary, bool seen, Device device) {
  const Shape features = {n.B, 1, n.H, n.K}, values = {n.B, 1, n.H, n.V};
  Tensor m = floats({n.B, n.H}, 9);
  if (!seen) m.fill(-INFINITY);
  const Tensor state =
      seen ? floats({n.B, n.H, n.K, n.V}, 10) : Tensor::zeros({n.B, n.H, n.K, n.V}, DType::F32);
  KernelCase c = {.name = "regla_step, K " + std::to_string(n.K) + ", V " + std::to_string(n.V),
                  .in_types = "SSAAAAIS",
                  .in = {floats(features, 1, 2), floats(features, 2, 2), floats(values, 3),
                         floats(values, 4, 2), floats(values, 5, 2), floats(values, 6),
                         random_ids({n.B, 1}, 7, 5000), floats({n.H, n.V}, 8)},
                  .out_types = "SSA",
                  .out = {m, state, floats(values, 11)},
                  .call = {}};
  c.call = [=](const auto& on, const Tensors& in, const Tensors& out) {
    on.regla_step({.z_q = in[0],
                   .z_k = in[1],
                   .v = in[2],
                   .z_g = in[3],
                   .z_r = in[4],
                   .z_o = gated ? in[5] : Tensor{},
                   .rotation = {in[6], rotary},
                   .scale = 0.4,
                   .gain = gated ? in[7] : Tensor{},
                   .epsilon = 1e-6,
                   .center = rotary > 0,
                   .m = out[0],
                   .state = out[1]},
                  out[2]);
  };
  c.tolerance = 1e-5;
  c.exact_tolerance = 1e-9;
  c.rounded = 5e-3;
  INFO("gated " << gated << ", rotary " << rotary << ", seen " << seen);
  check_case(c, device);
}

}  // namespace

TEST_CASE("a GPU's linear layers of a step are the CPU's", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const StepSizes& n : kStepSizes) {
    for (const DType weights : {DType::F32, DType::BF16}) {
      check_linear_step(n, true, Activation::None, false, weights, *device);
      check_linear_step(n, false, Activation::None, false, weights, *device);
      check_linear_step(n, true, Activation::Gelu, false, weights, *device);
      check_linear_step(n, false, Activation::TanhGelu, true, weights, *device);
      check_linear_step(n, false, Activation::None, true, weights, *device);
    }
  }
}

TEST_CASE("a GPU's step of ReGLA is the CPU's", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const HeadSizes& n : kHeadSizes) {
    for (const bool seen : {false, true}) {
      check_regla_step(n, true, n.K / 4 * 2, seen, *device);
      check_regla_step(n, false, n.K / 2 * 2, seen, *device);
      check_regla_step(n, true, 0, seen, *device);
    }
  }
}

}  // namespace regla::test
