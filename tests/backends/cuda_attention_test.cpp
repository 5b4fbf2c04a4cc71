// The CUDA backend's softmax attention beside the CPU's.

#include <optional>
#include <vector>

#include "tests/backends/cuda_support.h"

namespace regla::test {
namespace {

void check_attention(const HeadSizes& n, int64_t past, int64_t window, bool documents,
                     Device device) {
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

void check_attention_step(int64_t K, int64_t V, int32_t used, int64_t window, int64_t rotary,
                          Device device) {
  KernelCase c = {"softmax_attention_step",
                  "AAAI",
                  {floats({2, 1, 3, K}, 1), floats({2, 1, 3, K}, 2), floats({2, 1, 3, V}, 3),
                   Tensor::of({2, 1}, std::vector<int32_t>{used, used / 2})},
                  "AAAI",
                  {floats({2, 1, 3, V}, 4), floats({2, 300, 3, K}, 5), floats({2, 300, 3, V}, 6),
                   Tensor::of({1}, std::vector<int32_t>{used})},
                  [=](const auto& on, const auto& in, const auto& out) {
                    on.softmax_attention_step({.q = in[0],
                                               .k = in[1],
                                               .v = in[2],
                                               .keys = out[1],
                                               .values = out[2],
                                               .used = out[3],
                                               .rotation = {in[3], rotary},
                                               .window = window,
                                               .scale = 0.2},
                                              out[0]);
                  },
                  5e-6};
  // A key that turned is rounded as it comes into the cache, and its query with it, and both are
  // multiplied: o is then rounded twice.
  if (rotary > 0) c.rounded = 5e-3;
  check_case(c, device);
}

}  // namespace

TEST_CASE("a GPU's softmax attention is the CPU's, with windows, documents and a past", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const HeadSizes& n : kHeadSizes) {
    if (n.K > 300) continue;  // more shared memory in F64 than there is
    INFO("T " << n.T << ", K " << n.K << ", V " << n.V);
    check_attention(n, 0, 0, false, *device);
    check_attention(n, 9, 0, true, *device);
    check_attention(n, 33, 20, false, *device);
    check_attention(n, 3, 7, true, *device);
  }
  for (const int64_t K : {20, 64, 128}) {
    for (const int32_t used : {0, 1, 40, 299}) {
      for (const int64_t window : {0, 24}) {
        INFO("K " << K << ", " << used << " entries, window " << window);
        for (const int64_t rotary : {int64_t{0}, K / 4 * 2}) {
          INFO("of which " << rotary << " turn");
          check_attention_step(K, K == 20 ? 36 : 64, used, window, rotary, *device);
        }
      }
    }
  }
}

TEST_CASE("a GPU's step has the same bits whatever room is left and wherever its entries end",
          "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  const KernelTable& on = kernels(*device);
  const int64_t H = 3, K = 64;
  for (const DType A : {DType::F32, DType::BF16}) {
    const auto there = [&](const Tensor& x) { return converted(x, A).on(*device); };
    const Tensor q = there(floats({2, 1, H, K}, 1)), k = there(floats({2, 1, H, K}, 2));
    const Tensor v = there(floats({2, 1, H, K}, 3));
    for (const int32_t entries : {1, 100, 140, 1000}) {
      const Tensor past = there(floats({2, entries, H, K}, 4));
      const Tensor positions =
          Tensor::of({2, 1}, std::vector<int32_t>{entries, entries / 3}).on(*device);
      const auto step = [&](int64_t before, int64_t room) {
        const Tensor keys = Tensor::zeros({2, before + entries + room, H, K}, A, *device);
        copy_rows(past, 0, entries, keys, before);
        const Tensor used = Tensor::full({1}, static_cast<double>(before + entries), DType::I32);
        const Tensor o = Tensor::empty_like(q);
        on.softmax_attention_step({.q = q,
                                   .k = k,
                                   .v = v,
                                   .keys = keys,
                                   .values = keys.clone(),
                                   .used = used.on(*device),
                                   .rotation = {positions, 32},
                                   .window = 0,
                                   .scale = 0.2},
                                  o);
        return o.on(Device{});
      };
      INFO(name_of(A) << ", " << entries << " entries");
      const Tensor alone = step(0, 1);
      for (const int64_t before : {0, 7, 600}) {
        for (const int64_t room : {1, 50, 5000}) CHECK(same_bits(step(before, room), alone));
      }
    }
  }
}

TEST_CASE("a GPU's softmax attention by tiles is the CPU's, with windows, documents and a past",
          "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  const std::vector<HeadSizes> sizes = {
      {2, 1, 2, 64, 64},     {1, 63, 2, 32, 64},  {2, 65, 3, 64, 64}, {1, 1000, 1, 64, 64},
      {1, 130, 2, 128, 128}, {1, 200, 2, 96, 96}, {1, 129, 2, 16, 8}};
  for (const HeadSizes& n : sizes) {
    INFO("T " << n.T << ", K " << n.K << ", V " << n.V);
    check_attention(n, 0, 0, false, *device);
    check_attention(n, 0, 150, true, *device);
    check_attention(n, 70, 0, true, *device);
    check_attention(n, 200, 100, false, *device);
  }
}

TEST_CASE(
    "a GPU's gradients of softmax attention are those that are wanted, in the same bits twice",
    "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const int64_t K : {64, 128}) {
    const Shape shape = {2, 200, 2, K};
    const auto narrow = [&](uint64_t seed) {
      return converted(floats(shape, seed), DType::BF16).on(*device);
    };
    const Tensor q = narrow(1), k = narrow(2), v = narrow(3), d_o = narrow(4);
    const SoftmaxAttentionArgs args = {q, k, v, {}, 0, 0.125};
    const Tensor o = Tensor::empty_like(q), log_sum = beside(q, {2, 200, 2});
    const KernelTable& on = kernels(*device);
    on.softmax_attention(args, o, log_sum);
    const auto gradient = [&](int which) {
      const Tensor wanted = beside(q, shape);
      const auto sink = [&](int i) { return which == i ? Sink{wanted} : Sink{}; };
      on.softmax_attention_backward(args, o, log_sum, d_o, sink(0), sink(1), sink(2));
      return wanted.values();
    };
    const Tensor d_q = beside(q, shape), d_k = beside(q, shape), d_v = beside(q, shape);
    on.softmax_attention_backward(args, o, log_sum, d_o, {d_q}, {d_k}, {d_v});
    CHECK(gradient(0) == d_q.values());
    CHECK(gradient(1) == d_k.values());
    CHECK(gradient(2) == d_v.values());
  }
}

}  // namespace regla::test
