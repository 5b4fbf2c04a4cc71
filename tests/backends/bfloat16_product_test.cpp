// Products of BF16 on the CPU, by the processor's instructions and by widening, against sums in
// double of the same rounded numbers.

#include <cmath>

#include "backends/cpu/bfloat16_cross_entropy.h"
#include "backends/cpu/bfloat16_pack.h"
#include "backends/cpu/product.h"
#include "tests/bfloat16.h"
#include "tests/matchers.h"
#include "tests/support.h"

namespace regla::test {
namespace {

using cpu::BFloat16Way;

/// Both ways, where this processor has both.
std::vector<BFloat16Way> ways() {
  std::vector<BFloat16Way> list = {BFloat16Way::Widened};
  if (cpu::bfloat16_way() == BFloat16Way::Instructions) list.push_back(BFloat16Way::Instructions);
  return list;
}

struct Case {
  int64_t M, N, K;
  bool transpose_a, transpose_b, bias, accumulate;
  int64_t gap = 0;  // elements between the rows of every matrix
};

/// Few rows; odd sizes; one piece, several, parts of K beside each other and behind each other.
std::vector<Case> cases() {
  std::vector<Case> list = {{0, 3, 4, false, false, false, false},
                            {3, 0, 4, false, false, false, false},
                            {70, 9, 0, false, false, true, true},
                            {70, 9, 0, true, true, false, false}};
  for (const bool a : {false, true}) {
    for (const bool b : {false, true}) {
      list.push_back({5, 40, 33, a, b, true, false});
      list.push_back({77, 131, 45, a, b, true, true});
      list.push_back({64, 64, 64, a, b, false, true, 3});
      list.push_back({130, 1100, 37, a, b, true, true, 5});
      list.push_back({33, 48, 2100, a, b, false, false});
      list.push_back({33, 48, 2101, a, b, true, true, 1});
    }
  }
  list.push_back({20, 1030, 4200, false, true, true, false, 2});  // parts of K in turn
  return list;
}

/// A matrix whose rows have a gap behind them that holds NaN.
struct Stored {
  int64_t rows, columns, pitch;
  Tensor memory;
  Stored(int64_t r, int64_t c, int64_t gap, DType dtype, uint64_t seed)
      : rows(r), columns(c), pitch(c + gap), memory(Tensor::full({r * pitch + 1}, NAN, dtype)) {
    const std::vector<double> values = normal_tensor({r, c}, dtype, seed).values();
    std::vector<double> all = memory.values();
    for (int64_t i = 0; i < r * c; ++i) {
      all[static_cast<size_t>(i / c * pitch + i % c)] = values[static_cast<size_t>(i)];
    }
    memory = converted(Tensor::of(memory.shape(), all), dtype);
  }
  double at(const std::vector<double>& values, int64_t r, int64_t c, bool transposed) const {
    return values[static_cast<size_t>(transposed ? c * pitch + r : r * pitch + c)];
  }
};

template <class Out>
void check_product(const Case& n, BFloat16Way way) {
  const auto shaped = [&](bool turned, int64_t rows, int64_t columns, uint64_t seed) {
    return turned ? Stored(columns, rows, n.gap, DType::BF16, seed)
                  : Stored(rows, columns, n.gap, DType::BF16, seed);
  };
  const Stored a = shaped(n.transpose_a, n.M, n.K, 1), b = shaped(n.transpose_b, n.K, n.N, 2);
  Stored c(n.M, n.N, n.gap, dtype_of<Out>, 3);
  const Tensor bias = normal_tensor({n.N}, DType::F32, 4);
  const std::vector<double> before = c.memory.values(), x = a.memory.values(),
                            y = b.memory.values(), added = bias.values();
  multiply(cpu::Product<BFloat16, BFloat16, Out>{.M = n.M,
                                                 .N = n.N,
                                                 .K = n.K,
                                                 .transpose_a = n.transpose_a,
                                                 .transpose_b = n.transpose_b,
                                                 .a = a.memory.template data<BFloat16>(),
                                                 .a_pitch = a.pitch,
                                                 .b = b.memory.template data<BFloat16>(),
                                                 .b_pitch = b.pitch,
                                                 .bias = n.bias ? bias.data<float>() : nullptr,
                                                 .c = c.memory.template data<Out>(),
                                                 .c_pitch = c.pitch,
                                                 .accumulate = n.accumulate},
           way);
  const std::vector<double> found = c.memory.values();
  const double unit = std::is_same_v<Out, float> ? 1e-6 : 0x1p-8;
  double worst = 0;
  for (int64_t i = 0; i < n.M; ++i) {
    for (int64_t j = 0; j < n.N; ++j) {
      double sum = n.bias ? added[static_cast<size_t>(j)] : 0, size = std::abs(sum);
      for (int64_t k = 0; k < n.K; ++k) {
        const double term = a.at(x, i, k, n.transpose_a) * b.at(y, k, j, n.transpose_b);
        sum += term;
        size += std::abs(term);
      }
      if (n.accumulate) sum += c.at(before, i, j, false);
      const double allowed = unit * std::abs(sum) + 1e-6 * (size + 1);
      worst = std::max(worst, std::abs(c.at(found, i, j, false) - sum) / allowed);
    }
    for (int64_t j = n.N; j < c.pitch; ++j) {
      REQUIRE(std::isnan(found[static_cast<size_t>(i * c.pitch + j)]));
    }
  }
  CHECK(worst <= 1);
}

}  // namespace

TEST_CASE("products of BF16 are the sums of exact products, in both ways") {
  for (const BFloat16Way way : ways()) {
    for (const Case& n : cases()) {
      INFO("way " << static_cast<int>(way) << ", " << n.M << " x " << n.N << " x " << n.K
                  << (n.transpose_a ? ", A^T" : "") << (n.transpose_b ? ", B^T" : "")
                  << (n.bias ? ", bias" : "") << (n.accumulate ? ", added" : "") << ", gap "
                  << n.gap);
      check_product<float>(n, way);
      check_product<BFloat16>(n, way);
    }
  }
}

TEST_CASE("products of BF16 have the same bits on any number of threads") {
  const int before = threads();
  for (const BFloat16Way way : ways()) {
    for (const bool turned : {false, true}) {
      const int64_t M = 200, N = 300, K = 1200;
      const Tensor a = normal_tensor({M * K}, DType::BF16, 1),
                   b = normal_tensor({K * N}, DType::BF16, 2);
      Tensor first;
      for (const int count : {1, 2, 3, 5}) {
        set_threads(count);
        Tensor c = Tensor::empty({M, N}, DType::F32);
        multiply(cpu::Product<BFloat16, BFloat16, float>{.M = M,
                                                         .N = N,
                                                         .K = K,
                                                         .transpose_a = turned,
                                                         .transpose_b = turned,
                                                         .a = a.data<BFloat16>(),
                                                         .a_pitch = turned ? M : K,
                                                         .b = b.data<BFloat16>(),
                                                         .b_pitch = turned ? K : N,
                                                         .c = c.data<float>(),
                                                         .c_pitch = N},
                 way);
        if (!first) first = c;
        CHECK(same_bits(c, first));
      }
    }
  }
  set_threads(before);
}

TEST_CASE("a matrix is packed by pairs along K, with zeros beyond it") {
  for (const auto& [N, K] : std::vector<std::pair<int64_t, int64_t>>{{64, 32}, {130, 70}, {3, 5}}) {
    for (const bool transposed : {false, true}) {
      INFO(N << " x " << K << (transposed ? ", turned" : ""));
      const Tensor b = transposed ? normal_tensor({N, K}, DType::BF16, 1)
                                  : normal_tensor({K, N}, DType::BF16, 1);
      const int64_t blocks_down = (K + 31) / 32, blocks_across = (N + 63) / 64;
      Tensor packed = Tensor::full({blocks_across * blocks_down * 2048}, NAN, DType::BF16);
      cpu::pack_pairs(transposed, N, K, b.data<BFloat16>(), b.dim(1), packed.data<BFloat16>());
      const std::vector<double> from = b.values(), to = packed.values();
      for (int64_t n = 0; n < blocks_across * 64; ++n) {
        for (int64_t k = 0; k < blocks_down * 32; ++k) {
          const int64_t block = n / 64 * blocks_down + k / 32;
          const int64_t at = block * 2048 + (k % 32 / 2 * 64 + n % 64) * 2 + k % 2;
          const bool inside = n < N && k < K;
          const double wanted =
              inside ? from[static_cast<size_t>(transposed ? n * K + k : k * N + n)] : 0;
          REQUIRE(to[static_cast<size_t>(at)] == wanted);
        }
      }
    }
  }
}

TEST_CASE("the loss in BF16 is that of the same numbers in double, in both ways") {
  // Several slices of rows, panels of the vocabulary, the last of them narrower; rows that do not
  // count.
  const int64_t R = 600, D = 40, vocab = 1100;
  const Tensor hidden = normal_tensor({R, D}, DType::BF16, 1);
  const Tensor weight = normal_tensor({vocab, D}, DType::BF16, 2, 0.3);
  Tensor targets = random_ids({R}, 3, vocab);
  targets.data<int32_t>()[7] = -1;
  targets.data<int32_t>()[8] = static_cast<int32_t>(vocab - 1);
  const CrossEntropyArgs exact_args = {.hidden = converted(hidden, DType::F64),
                                       .weight = converted(weight, DType::F64),
                                       .targets = targets,
                                       .scale = 1.0 / 599};
  const Tensor exact = Tensor::empty({R}, DType::F64),
               exact_hidden = Tensor::empty({R, D}, DType::F64),
               exact_weight = Tensor::empty({vocab, D}, DType::F64);
  kernels({}).cross_entropy(exact_args, exact, exact_hidden, exact_weight);
  const CrossEntropyArgs args = {hidden, weight, targets, exact_args.scale};
  const int before = threads();
  for (const BFloat16Way way : ways()) {
    Tensors first;
    for (const int count : {1, 3}) {
      set_threads(count);
      const Tensor losses = Tensor::full({R}, NAN, DType::F32);
      const Tensor d_hidden = Tensor::full({R, D}, NAN, DType::BF16);
      const Tensor d_weight = Tensor::full({vocab, D}, NAN, DType::F32);
      cpu::bfloat16_cross_entropy(args, losses, d_hidden, d_weight, way);
      check_rounded(losses, exact, 1e-5);
      CHECK(losses.values()[7] == 0);
      check_rounded(d_hidden, exact_hidden, 4e-3);
      check_rounded(d_weight, exact_weight, 4e-3);
      const Tensors all = {losses, d_hidden, d_weight};
      if (first.empty()) first = all;
      for (size_t i = 0; i < all.size(); ++i) CHECK(same_bits(all[i], first[i]));
      const Tensor alone = Tensor::full({R}, NAN, DType::F32);
      cpu::bfloat16_cross_entropy(args, alone, {}, {}, way);
      CHECK(same_bits(alone, losses));
    }
  }
  set_threads(before);
}

}  // namespace regla::test
