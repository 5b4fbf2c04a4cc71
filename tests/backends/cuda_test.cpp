// The CUDA backend beside the CPU's: memory, conversions, products and what a small training step
// needs. Skipped, visibly, where there is no GPU.

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "backends/copies.h"
#include "backends/routine.h"
#include "tests/gpu.h"
#include "tests/support.h"

namespace regla::test {
namespace {

/// One step of descent for y = W2 gelu(W1 x) towards 0, on intermediate memory of its own.
struct ToyStep {
  Device device;
  Tensor x = Tensor::zeros({33, 64}, DType::F32, device);
  Tensor w1 = normal_tensor({64, 96}, DType::F32, 2, 0.1).on(device);
  Tensor w2 = normal_tensor({96, 40}, DType::F32, 3, 0.1).on(device);
  Tensor y = {};
  int calls = 0;

  void operator()() {
    ++calls;
    const KernelTable& on = kernels(device);
    const auto empty = [&](const Shape& shape) { return Tensor::empty(shape, DType::F32, device); };
    const Tensor z = empty({33, 96}), h = empty({33, 96}), d_h = empty({33, 96});
    y = empty({33, 40});
    on.matmul({x, w1, {}, false, false}, {z});
    on.gelu(z, true, h);
    on.matmul({h, w2, {}, false, false}, {y});
    const Tensor d_w2 = empty({96, 40});
    on.matmul({h, y, {}, true, false}, {d_w2});
    on.matmul({y, w2, {}, false, true}, {d_h});
    const Tensor d_z = Tensor::zeros({33, 96}, DType::F32, device);
    on.gelu_backward(z, true, d_h, {{{d_z, true}}, {}});
    const Tensor d_w1 = empty({64, 96});
    on.matmul({x, d_z, {}, true, false}, {d_w1});
    on.accumulate(d_w1, -1e-3, {w1, true});
    on.accumulate(d_w2.clone(), -1e-3, {w2, true});
  }
};

/// What a kernel call writes into `like` on the GPU against what it writes on the CPU.
double error_of_kernel(
    const Tensors& in, const Tensor& like, Device device,
    const std::function<void(const KernelTable&, const Tensors&, Tensor)>& call) {
  const auto run = [&](Device where) {
    Tensors there;
    for (const Tensor& tensor : in) there.push_back(tensor.on(where));
    const Tensor out = like.clone().on(where);
    call(kernels(where), there, out);
    return out.on(Device{});
  };
  return relative_error(run(device), run(Device{}));
}

}  // namespace

TEST_CASE("a GPU's memory gives back what it was given", "[cuda]") {
  const std::optional<Device> opened = gpu();
  if (!opened) return;
  const Device device = *opened;
  for (const int64_t count : {1, 63, 1000, (3 << 20) + 7}) {
    const Tensor x = normal_tensor({count}, DType::F32, 5);
    const Tensor there = x.on(device);
    CHECK(there.device() == device);
    CHECK(same_bits(there.on(Device{}), x));
    CHECK(same_bits(there.clone().slice(count / 2, count).on(Device{}), x.slice(count / 2, count)));
  }
  for (const DType dtype : {DType::F32, DType::F64, DType::BF16, DType::I32}) {
    CHECK(Tensor::full({70'001}, -3, dtype, device).values() == std::vector<double>(70'001, -3));
  }
  CHECK(error_of([&] {
          static_cast<void>(Tensor::zeros({1}, DType::F32, device).raw());
        }).rfind("[tensor] cuda:0 F32 [1] is read on the host, at ", 0) == 0);
  CHECK(error_of([&] {
          Tensor::empty({int64_t{1} << 45}, DType::F32, device);
        }).rfind("[memory] out of memory on cuda:0 asking for ", 0) == 0);
}

TEST_CASE("what a GPU has done is read while it does more", "[cuda]") {
  const std::optional<Device> opened = gpu();
  if (!opened) return;
  Memory& there = memory(*opened);
  const Tensor rows = Tensor::zeros({64, 1000}, DType::F32, *opened);
  const Tensor a = Tensor::full({2048, 2048}, 1, DType::F32, *opened), b = Tensor::empty_like(a);
  std::vector<int64_t> marks;
  for (int64_t i = 0; i < 64; ++i) {
    Tensor row = rows.slice(i, i + 1);
    row.copy_from(Tensor::full({1, 1000}, static_cast<double>(i), DType::F32));
    marks.push_back(there.set_mark());
    kernels(*opened).matmul({a, a, {}, false, false}, {b});
  }
  for (int64_t i = 0; i < 64; ++i) {
    const int64_t mark = marks[static_cast<size_t>(i)];
    CHECK(rows.slice(i, i + 1).values_at(mark) ==
          std::vector<double>(1000, static_cast<double>(i)));
    CHECK(there.has_passed(mark));
  }
  CHECK(b.slice(0, 1).values()[7] == 2048);
}

TEST_CASE("a GPU's memory is used again and grows in one piece", "[cuda]") {
  const std::optional<Device> opened = gpu();
  if (!opened) return;
  const Device device = *opened;
  { const Tensor whole = Tensor::empty({48 << 20}, DType::F32, device); }
  const int64_t before = memory(device).stats().system_bytes;
  for (const int64_t count : {3, 5, 7, 16}) {
    Tensors parts;
    for (int64_t i = 0; i < count; ++i) {
      parts.push_back(Tensor::empty({(48 << 20) / count - 64}, DType::F32, device));
    }
  }
  CHECK(memory(device).stats().system_bytes == before);
  memory(device).trim();
  const Tensor again = Tensor::full({48 << 20}, 2, DType::F32, device);
  CHECK(again.slice((48 << 20) - 1, 48 << 20).values()[0] == 2);
}

TEST_CASE("conversions on a GPU have the CPU's bits", "[cuda]") {
  const std::optional<Device> opened = gpu();
  if (!opened) return;
  const Device device = *opened;
  const Tensor x = normal_tensor({10'007}, DType::F64, 3, 40);
  for (const DType from : {DType::F32, DType::F64, DType::BF16, DType::I32}) {
    for (const DType to : {DType::F32, DType::F64, DType::BF16, DType::I32}) {
      const Tensor source = converted(x, from);
      INFO(name_of(from) << " to " << name_of(to));
      CHECK(same_bits(converted(source.on(device), to).on(Device{}), converted(source, to)));
    }
  }
}

TEST_CASE("rows are copied on a GPU as on the CPU", "[cuda][sanitizer]") {
  const std::optional<Device> opened = gpu();
  if (!opened) return;
  const Device device = *opened;
  const Tensor from = normal_tensor({3, 7, 5}, DType::F32, 1),
               to = normal_tensor({3, 9, 5}, DType::F32, 2);
  CHECK(
      error_of_kernel({from}, to, device, [](const KernelTable& on, const Tensors& in, Tensor out) {
        on.copy_rows({.from = in[0], .begin = 2, .count = 4, .to = out, .at = 5});
      }) == 0);
}

TEST_CASE("products on a GPU are the CPU's, in every form", "[cuda]") {
  const std::optional<Device> opened = gpu();
  if (!opened) return;
  const Device device = *opened;
  for (const DType dtype : {DType::F32, DType::F64}) {
    for (const bool transpose_a : {false, true}) {
      for (const bool transpose_b : {false, true}) {
        for (const bool has_bias : {false, true}) {
          for (const bool accumulate : {false, true}) {
            if (has_bias && accumulate) continue;
            const int64_t M = 65, N = 48, K = 129;
            const Tensor a = normal_tensor(transpose_a ? Shape{K, M} : Shape{M, K}, dtype, 1);
            const Tensor b = normal_tensor(transpose_b ? Shape{N, K} : Shape{K, N}, dtype, 2);
            const Tensor bias = has_bias ? normal_tensor({N}, dtype, 3) : Tensor{};
            const Tensor before = normal_tensor({M, N}, dtype, 4);
            const double error = error_of_kernel(
                {a, b, bias}, before, device,
                [=](const KernelTable& on, const Tensors& in, Tensor out) {
                  on.matmul({in[0], in[1], in[2], transpose_a, transpose_b}, {out, accumulate});
                });
            INFO(name_of(dtype) << transpose_a << transpose_b << has_bias << accumulate);
            CHECK(error < (dtype == DType::F64 ? 1e-14 : 2e-6));
          }
        }
      }
    }
  }
}

TEST_CASE("products of BF16 on a GPU add a bias of the type of their result", "[cuda]") {
  const std::optional<Device> opened = gpu();
  if (!opened) return;
  constexpr int64_t M = 65, N = 48, K = 129;
  const Tensor a = normal_tensor({M, K}, DType::BF16, 1), b = normal_tensor({N, K}, DType::BF16, 2);
  for (const DType type : {DType::BF16, DType::F32}) {
    const Tensor bias = converted(normal_tensor({N}, DType::F32, 3, 10), type);
    const Tensor out = Tensor::empty({M, N}, type);
    INFO(name_of(type));
    CHECK(error_of_kernel({a, b, bias}, out, *opened,
                          [](const KernelTable& on, const Tensors& in, Tensor result) {
                            on.matmul({in[0], in[1], in[2], false, true}, {result});
                          }) < (type == DType::F32 ? 2e-6 : 4e-3));
    const Tensor other = converted(bias, type == DType::F32 ? DType::BF16 : DType::F32).on(*opened);
    CHECK_THROWS_AS(kernels(*opened).matmul({a.on(*opened), b.on(*opened), other, false, true},
                                            {out.on(*opened)}),
                    Error);
  }
}

TEST_CASE("products on a GPU are in TF32 where that is allowed, and exact again after", "[cuda]") {
  const std::optional<Device> opened = gpu();
  if (!opened) return;
  const Tensor a = normal_tensor({256, 512}, DType::F32, 1).on(*opened);
  const Tensor b = normal_tensor({512, 128}, DType::F32, 2).on(*opened);
  const auto product = [&](DType dtype) {
    const Tensor c = Tensor::empty({256, 128}, dtype, *opened);
    kernels(*opened).matmul({converted(a, dtype), converted(b, dtype), {}, false, false}, {c});
    return c.on(Device{});
  };
  const Tensor exact = product(DType::F32), exact_double = product(DType::F64);
  CHECK(relative_error(exact, exact_double) < 5e-6);
  allow_tf32(*opened, true);
  const Tensor rounded = product(DType::F32), still_double = product(DType::F64);
  allow_tf32(*opened, false);
  CHECK(relative_error(rounded, exact_double) > 2e-5);
  CHECK(relative_error(rounded, exact_double) < 2e-3);
  CHECK(same_bits(still_double, exact_double));
  CHECK(same_bits(product(DType::F32), exact));
}

TEST_CASE("elementwise kernels and an update on a GPU are the CPU's", "[cuda]") {
  const std::optional<Device> opened = gpu();
  if (!opened) return;
  const Device device = *opened;
  for (const DType dtype : {DType::F32, DType::F64}) {
    const double tolerance = dtype == DType::F64 ? 1e-14 : 1e-6;
    const Tensor x = normal_tensor({301, 67}, dtype, 1, 2), y = normal_tensor({301, 67}, dtype, 2);
    const auto check_kernel = [&](const char* name, auto&& call) {
      INFO(name << " " << name_of(dtype));
      CHECK(error_of_kernel({x, y}, y, device, call) < tolerance);
    };
    check_kernel("add", [](const KernelTable& on, const Tensors& in, Tensor out) {
      on.add(in[0], in[1], out);
    });
    check_kernel("accumulate", [](const KernelTable& on, const Tensors& in, Tensor out) {
      on.accumulate(in[0], -0.7, {out, true});
    });
    check_kernel("scale_by", [](const KernelTable& on, const Tensors& in, Tensor out) {
      const Tensor factor = Tensor::full({1}, 3, DType::F64, out.device());
      on.scale_by(in[0], factor, {out, false});
    });
    for (const bool tanh : {false, true}) {
      check_kernel("gelu", [=](const KernelTable& on, const Tensors& in, Tensor out) {
        on.gelu(in[0], tanh, out);
      });
      check_kernel("gelu_backward", [=](const KernelTable& on, const Tensors& in, Tensor out) {
        on.gelu_backward(in[0], tanh, in[1], {{{out, true}}, {}});
      });
    }
    check_kernel("adamw", [](const KernelTable& on, const Tensors& in, Tensor out) {
      const Tensor m = Tensor::full(out.shape(), 0.1, out.dtype(), out.device());
      const Tensor v = Tensor::full(out.shape(), 0.2, out.dtype(), out.device());
      const std::vector<double> rates = {0.01, 0.2, 0.03};
      on.adamw({.weights = {{out, in[0], m, v, {}, 0.1}},
                .rates = Tensor::of({3}, rates, out.device()),
                .factor = Tensor::full({1}, 0.5, DType::F64, out.device()),
                .beta1 = 0.9,
                .beta2 = 0.99,
                .epsilon = 1e-8});
    });
  }
}

TEST_CASE("a step that a GPU captured has the bits of one that is called", "[cuda][sanitizer]") {
  const std::optional<Device> opened = gpu();
  if (!opened) return;
  const Device device = *opened;
  ToyStep called{.device = device}, captured{.device = device};
  Routine routine(device, [&] { captured(); });
  std::vector<Tensor> others;
  for (uint64_t update = 0; update < 6; ++update) {
    INFO("update " << update);
    const Tensor x = normal_tensor({33, 64}, DType::F32, 10 + update);
    called.x.copy_from(x);
    captured.x.copy_from(x);
    called();
    routine.run();
    CHECK(same_bits(captured.y.on(Device{}), called.y.on(Device{})));
    CHECK(same_bits(captured.w1.on(Device{}), called.w1.on(Device{})));
    CHECK(same_bits(captured.w2.on(Device{}), called.w2.on(Device{})));
    // Whoever takes memory meanwhile is left alone.
    others.push_back(Tensor::full({33, 96}, static_cast<double>(update), DType::F32, device));
  }
  for (size_t i = 0; i < others.size(); ++i) {
    CHECK(others[i].values() == std::vector<double>(33 * 96, static_cast<double>(i)));
  }
  CHECK(captured.calls == 2);  // to warm up, and to be captured
  CHECK(called.calls == 6);
}

TEST_CASE("an error while a GPU captures leaves it usable", "[cuda]") {
  const std::optional<Device> opened = gpu();
  if (!opened) return;
  const Device device = *opened;
  const Tensor x = Tensor::full({1000}, 1, DType::F32, device), y = Tensor::zeros_like(x);
  int calls = 0;
  Routine routine(device, [&] {
    kernels(device).accumulate(x, 1, {y, true});
    if (++calls == 2) static_cast<void>(y.values());
  });
  routine.run();
  CHECK(error_of([&] { routine.run(); }) ==
        "[routine] bytes are copied to the host inside of a routine of cuda:0, which cannot be "
        "repeated");
  CHECK(y.values() == std::vector<double>(1000, 1));
  for (int i = 0; i < 3; ++i) routine.run();
  CHECK(calls == 3);
  CHECK(y.values() == std::vector<double>(1000, 4));
}

TEST_CASE("a routine's memory is a GPU's again when it is gone", "[cuda]") {
  const std::optional<Device> opened = gpu();
  if (!opened) return;
  const Device device = *opened;
  int64_t taken = 0;
  Tensor kept;
  for (int i = 0; i < 4; ++i) {
    Routine routine(device, [&] {
      const Tensor large = Tensor::full({16 << 20}, 2, DType::F32, device);
      kept = large.slice(0, 10).clone();
    });
    for (int run = 0; run < 3; ++run) routine.run();
    CHECK(kept.values() == std::vector<double>(10, 2));
    taken = memory(device).stats().bytes_in_use;
  }
  kept = {};
  CHECK(memory(device).stats().bytes_in_use < taken);
  memory(device).trim();
  CHECK(Tensor::full({48 << 20}, 3, DType::F32, device).slice(0, 1).values()[0] == 3);
}

TEST_CASE("what stops a bad update on a GPU has the CPU's bits", "[cuda][sanitizer]") {
  const std::optional<Device> opened = gpu();
  if (!opened) return;
  const Device device = *opened;
  const Tensor squares = converted(random_ids({301}, 1, 50), DType::F64);
  for (const double loss : {2.5, static_cast<double>(NAN)}) {
    const auto report_on = [&](Device where) {
      const Tensor latch = Tensor::zeros({1}, DType::I32, where);
      const Tensor losses = Tensor::full({2}, loss, DType::F64, where);
      const Tensor report = Tensor::empty({3}, DType::F64, where);
      kernels(where).clip_factor(squares.on(where), losses, 3, latch, report);
      CHECK(latch.values()[0] == (loss == loss ? 0 : 1));
      return report;
    };
    const Tensor report = report_on(device);
    CHECK(same_bits(report.on(Device{}), report_on(Device{})));
    const Tensor factor = report.slice(2, 3);
    for (const DType dtype : {DType::F32, DType::F64, DType::BF16, DType::I32}) {
      const Tensor from = converted(random_ids({1001}, 2, 100), dtype);
      const Tensor before = converted(random_ids({1001}, 3, 100), dtype);
      const Tensor to = before.on(device);
      kernels(device).commit(factor, from.on(device), to);
      CHECK(same_bits(to.on(Device{}), loss == loss ? from : before));
      kernels(device).restart(Tensor::zeros({1}, DType::I32, device), 5, to);
      CHECK(same_bits(to.on(Device{}), loss == loss ? from : before));
      kernels(device).restart(Tensor::full({1}, 1, DType::I32, device), 5, to);
      CHECK(same_bits(to.on(Device{}), Tensor::full({1001}, 5, dtype)));
    }
    const Tensor w = normal_tensor({77}, DType::F32, 4), there = w.clone().on(device);
    const Tensor copy = Tensor::zeros({77}, DType::BF16, device);
    kernels(device).adamw({.weights = {{.value = there,
                                        .gradient = w.clone().on(device),
                                        .m = Tensor::zeros({77}, DType::F32, device),
                                        .v = Tensor::zeros({77}, DType::F32, device),
                                        .copy = copy,
                                        .decay = 0.1}},
                           .rates = Tensor::full({3}, 0.5, DType::F64, device),
                           .factor = factor,
                           .beta1 = 0.9,
                           .beta2 = 0.99,
                           .epsilon = 1e-8});
    CHECK(same_bits(there.on(Device{}), w) != (loss == loss));
    const Tensor rounded = loss == loss ? converted(there, DType::BF16) : Tensor::zeros_like(copy);
    CHECK(same_bits(copy.on(Device{}), rounded.on(Device{})));
  }
}

}  // namespace regla::test
