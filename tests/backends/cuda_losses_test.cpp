#include <array>
#include <optional>
#include <vector>

#include "tests/backends/cuda_support.h"

namespace regla::test {

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
                1e-5,
                1e-2,
                1e-3},  // two scores in F16
               *device);
  }
}

TEST_CASE("a GPU's divergences from a teacher and their gradients are the CPU's", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const auto& [R, D, E, vocab] : std::vector<std::array<int64_t, 4>>{{1, 8, 5, 3},
                                                                          {33, 24, 24, 50},
                                                                          {130, 64, 32, 1001},
                                                                          {2500, 16, 8, 257},
                                                                          {9, 16, 16, 130'001}}) {
    INFO(R << " rows, " << vocab << " ids");
    Tensor targets = random_ids({R}, 1, vocab);
    for (int64_t i = 3; i < R; i += 11) targets.data<int32_t>()[i] = -1;
    const Tensor hidden = floats({R, D}, 2), weight = floats({vocab, D}, 3, 0.3);
    const Tensor teacher = floats({R, E}, 4), teacher_weight = floats({vocab, E}, 5, 0.3);
    const Tensor losses = Tensor::zeros({R}, DType::F32);
    for (const double temperature : {1.0, 2.5}) {
      for (const bool has_gradients : {true, false}) {
        const auto wanted = [=](const Tensor& x) { return has_gradients ? x : Tensor{}; };
        check_case({"distillation",
                    "AAAAI",
                    {hidden, weight, teacher, teacher_weight, targets},
                    "SAS",
                    {losses, wanted(hidden), wanted(weight)},
                    [=](const auto& on, const auto& in, const auto& out) {
                      on.distillation(
                          {in[0], in[1], in[2], in[3], in[4], temperature, 1.0 / double(R)}, out[0],
                          out[1], out[2]);
                    },
                    1e-5,
                    1e-2,
                    1e-2},
                   *device);
      }
    }
  }
}

TEST_CASE("a GPU's relative errors and their gradients are the CPU's", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const int64_t size : {1, 7, 1000, 70'001, 3'000'000}) {
    for (const bool is_zero : {false, true}) {
      INFO(size << " elements");
      const Tensor x = floats({size}, 1),
                   y = is_zero ? Tensor::zeros({size}, DType::F32) : floats({size}, 2);
      const Tensor error = Tensor::zeros({2}, DType::F64),
                   d_error = Tensor::full({1}, 0.3, DType::F64);
      check_case({"relative_error",
                  "AA",
                  {x, y},
                  "D",
                  {error},
                  [](const auto& on, const auto& in, const auto& out) {
                    on.relative_error(in[0], in[1], out[0]);
                  }},
                 *device);
      const Tensor divisor = Tensor::of({2}, std::vector<double>{0.5, 40});
      for (const bool adds : {false, true}) {
        check_case({"relative_error_backward",
                    "AADD",
                    {x, y, divisor, d_error},
                    "S",
                    {x},
                    [=](const auto& on, const auto& in, const auto& out) {
                      on.relative_error_backward(in[0], in[1], in[2], in[3], Sink{out[0], adds});
                    }},
                   *device);
      }
    }
  }
}

}  // namespace regla::test
