#include "backends/kernels.h"

#include <cmath>

#include "tests/matchers.h"
#include "tests/support.h"

namespace regla::test {
namespace {

using Numbers = std::vector<double>;

const KernelTable& cpu() { return kernels(Device{}); }

/// op(a) op(b) + bias + c, by three loops.
Numbers naive_product(const MatmulArgs& args, int64_t M, int64_t N, int64_t K, const Numbers& c) {
  const Numbers a = args.a.values(), b = args.b.values();
  const Numbers bias = args.bias ? args.bias.values() : Numbers(static_cast<size_t>(N), 0);
  Numbers out = c;
  for (int64_t m = 0; m < M; ++m) {
    for (int64_t n = 0; n < N; ++n) {
      double sum = bias[static_cast<size_t>(n)];
      for (int64_t k = 0; k < K; ++k) {
        sum += a[static_cast<size_t>(args.transpose_a ? k * M + m : m * K + k)] *
               b[static_cast<size_t>(args.transpose_b ? n * K + k : k * N + n)];
      }
      out[static_cast<size_t>(m * N + n)] += sum;
    }
  }
  return out;
}

}  // namespace

TEST_CASE("matmul is three loops, in every combination of its flags") {
  for (const auto& [M, N, K] : {std::array<int64_t, 3>{1, 1, 1},
                                {3, 5, 7},
                                {1, 70, 33},
                                {65, 1, 20},
                                {49, 130, 17},
                                {300, 70, 5},
                                {16, 600, 3}}) {
    for (int flags = 0; flags < 16; ++flags) {
      const bool ta = flags & 1, tb = flags & 2, bias = flags & 4, accumulate = flags & 8;
      for (DType dtype : {DType::F32, DType::F64}) {
        const MatmulArgs args = {.a = normal_tensor(ta ? Shape{K, M} : Shape{M, K}, dtype, 1),
                                 .b = normal_tensor(tb ? Shape{N, K} : Shape{K, N}, dtype, 2),
                                 .bias = bias ? normal_tensor({N}, dtype, 3) : Tensor{},
                                 .transpose_a = ta,
                                 .transpose_b = tb};
        // Memory that is only written may hold NaN.
        const Tensor before = normal_tensor({M, N}, dtype, 4);
        const Tensor out = accumulate ? before.clone() : Tensor::full({M, N}, NAN, dtype);
        const Numbers expected = naive_product(
            args, M, N, K, accumulate ? before.values() : Numbers(static_cast<size_t>(M * N), 0));
        cpu().matmul(args, {out, accumulate});
        INFO(M << " x " << N << " x " << K << ", flags " << flags << ", " << name_of(dtype));
        CHECK(relative_error(out.values(), expected) < (dtype == DType::F64 ? 1e-13 : 1e-5));
      }
    }
  }
}

TEST_CASE("the loss in slices of rows is the sum over its rows") {
  const int64_t R = 450, D = 3, vocab = 20000, step = 50;  // slices of 209 rows
  const Tensor hidden = normal_tensor({R, D}, DType::F64, 1);
  const Tensor weight = normal_tensor({vocab, D}, DType::F64, 2);
  const Tensor targets = random_ids({R}, 3, vocab);
  const auto empty = [](const Shape& shape) { return Tensor::empty(shape, DType::F64); };
  const Tensor losses = empty({R}), d_hidden = empty({R, D}), d_weight = empty({vocab, D});
  cpu().cross_entropy({hidden, weight, targets, 0.1}, losses, d_hidden, d_weight);
  const Tensor sum = Tensor::zeros({vocab, D}, DType::F64), part = empty({vocab, D});
  for (int64_t r = 0; r < R; r += step) {
    const Tensor few = empty({step}), d_few = empty({step, D});
    cpu().cross_entropy({hidden.slice(r, r + step), weight, targets.slice(r, r + step), 0.1}, few,
                        d_few, part);
    CHECK(relative_error(few, losses.slice(r, r + step)) < 1e-13);
    CHECK(relative_error(d_few, d_hidden.slice(r, r + step)) < 1e-13);
    cpu().accumulate(part, 1, {sum, true});
  }
  CHECK(relative_error(d_weight, sum) < 1e-13);
}

TEST_CASE("the norm's gradients over many rows are the sums over its rows") {
  const int64_t R = 900, N = 5;
  for (int64_t G : {1, 3}) {
    const auto empty = [](const Shape& shape) { return Tensor::empty(shape, DType::F64); };
    const Tensor x = normal_tensor({R, N}, DType::F64, 1),
                 d_y = normal_tensor({R, N}, DType::F64, 2);
    const Tensor gain = normal_tensor({G, N}, DType::F64, 3);
    const Tensor sum = Tensor::zeros({2 * G, N}, DType::F64);
    const auto run = [&](int64_t begin, int64_t end, const Sink& d_gain, const Sink& d_bias) {
      const NormArgs args = {x.slice(begin, end), gain, gain, 1e-5, true};
      const Tensor y = empty({end - begin, N}), d_x = empty(y.shape());
      const Tensor mean = empty({end - begin}), inverse = empty({end - begin});
      cpu().norm(args, y, mean, inverse);
      cpu().norm_backward(args, mean, inverse, d_y.slice(begin, end), {d_x, false}, d_gain, d_bias);
      return d_x;
    };
    const Tensor both = empty({2 * G, N});
    const Tensor d_x = run(0, R, {both.slice(0, G), false}, {both.slice(G, 2 * G), false});
    for (int64_t r = 0; r < R; r += 9) {
      const Tensor few = run(r, r + 9, {sum.slice(0, G), true}, {sum.slice(G, 2 * G), true});
      CHECK(relative_error(few, d_x.slice(r, r + 9)) < 1e-13);
    }
    CHECK(relative_error(both, sum) < 1e-12);
  }
}

TEST_CASE("sums over columns and over everything") {
  for (DType dtype : {DType::F32, DType::F64}) {
    const Tensor x = normal_tensor({301, 67}, dtype, 1), before = normal_tensor({67}, dtype, 2);
    const Tensor out = before.clone();
    Numbers sums = before.values();
    double squares = 0;
    const Numbers values = x.values();
    for (size_t i = 0; i < values.size(); ++i) {
      sums[i % 67] += values[i];
      squares += values[i] * values[i];
    }
    cpu().column_sums(x, {out, true});
    CHECK(relative_error(out.values(), sums) < (dtype == DType::F64 ? 1e-13 : 1e-5));
    const Tensor got = Tensor::empty({3}, DType::F64), one = Tensor::full({2}, 3, dtype);
    cpu().sums_of_squares({x, {}, one}, got);
    CHECK(got.values()[0] == Approx(squares).epsilon(1e-12));
    CHECK(got.slice(1, 3).values() == Numbers{0, 18});
  }
}

TEST_CASE("accumulate writes or adds") {
  const Tensor x = Tensor::of({2}, Numbers{1, 2}), out = Tensor::full({2}, NAN, DType::F64);
  cpu().accumulate(x, 3, {out, false});
  CHECK(out.values() == Numbers{3, 6});
  cpu().accumulate(x, -1, {out, true});
  CHECK(out.values() == Numbers{2, 4});
}

TEST_CASE("rotary positions keep their digits far out") {
  const int64_t far = 1000003;
  const Tensor x = normal_tensor({1, 2, 1, 6}, DType::F64, 1);
  const Tensor positions = Tensor::of({1, 2}, std::vector<int32_t>{0, static_cast<int32_t>(far)});
  const Numbers in = x.values();
  Numbers expected = in;
  for (size_t i = 0; i < 2; ++i) {  // 4 of 6 features turn
    const double angle = static_cast<double>(far) * std::pow(10000.0, -2.0 * double(i) / 4);
    expected[6 + i] = in[6 + i] * std::cos(angle) - in[8 + i] * std::sin(angle);
    expected[8 + i] = in[8 + i] * std::cos(angle) + in[6 + i] * std::sin(angle);
  }
  for (DType dtype : {DType::F32, DType::F64}) {
    const Tensor y = Tensor::empty(x.shape(), dtype), back = Tensor::empty(x.shape(), dtype);
    const RopeArgs args = {converted(x, dtype), {positions, 4}, false};
    cpu().rope(args, {y, false});
    const double bound = dtype == DType::F64 ? 1e-14 : 1e-6;
    CHECK(relative_error(y.values(), expected) < bound);
    RopeArgs inverse = args;
    inverse.x = y;
    inverse.inverse = true;
    cpu().rope(inverse, {back, false});
    CHECK(relative_error(back.values(), in) < bound);
  }
}

TEST_CASE("AdamW is the published update") {
  const double rate = 0.01, beta1 = 0.9, beta2 = 0.99, epsilon = 1e-8, decay = 0.1, scale = 0.5;
  for (DType dtype : {DType::F32, DType::F64}) {
    const Tensor w = normal_tensor({17}, dtype, 1), m = Tensor::zeros({17}, dtype);
    const Tensor v = Tensor::zeros({17}, dtype);
    Numbers exact_w = w.values(), exact_m(17), exact_v(17);
    for (int t = 1; t <= 5; ++t) {
      const Tensor g = normal_tensor({17}, dtype, static_cast<uint64_t>(10 + t));
      const double c1 = 1 - std::pow(beta1, t), c2 = 1 - std::pow(beta2, t);
      const Tensor rates = Tensor::of({3}, Numbers{rate, c1, c2});
      const Tensor factor = Tensor::of({1}, Numbers{scale});
      cpu().adamw({{{w, g, m, v, {}, decay}}, rates, factor, beta1, beta2, epsilon});
      for (size_t i = 0; i < 17; ++i) {
        const double gradient = scale * g.values()[i];
        exact_m[i] = beta1 * exact_m[i] + (1 - beta1) * gradient;
        exact_v[i] = beta2 * exact_v[i] + (1 - beta2) * gradient * gradient;
        exact_w[i] -=
            rate * (exact_m[i] / c1 / (std::sqrt(exact_v[i] / c2) + epsilon) + decay * exact_w[i]);
      }
    }
    CHECK(relative_error(w.values(), exact_w) < (dtype == DType::F64 ? 1e-13 : 1e-6));
    CHECK(relative_error(v.values(), exact_v) < (dtype == DType::F64 ? 1e-13 : 1e-5));
  }
}

TEST_CASE("dropout keeps the expectation and draws per element, not per call") {
  const Tensor x = Tensor::full({40000}, 1, DType::F64), y = Tensor::empty({40000}, DType::F64);
  cpu().dropout({x, {}, {}, 0.1, 1, 2, 0}, {y, false});
  double sum = 0;
  for (double value : y.values()) sum += value;
  CHECK(sum / 40000 == Approx(1).margin(0.01));
  for (int64_t first : {1, 3, 1000, 20000}) {
    const Tensor part = Tensor::empty({100}, DType::F64);
    cpu().dropout({x.slice(0, 100), {}, {}, 0.1, 1, 2, first}, {part, false});
    CHECK(same_bits(part, y.slice(first, first + 100)));
  }
}

TEST_CASE("a backend without a kernel says so") {
  const KernelTable none;
  CHECK_THROWS_WITH(none.softmax({}, {}), Contains("[softmax] this backend has no such kernel"));
  CHECK_THROWS_AS(kernels({Device::Kind::Cuda, 0}), Error);
  CHECK(std::string(cpu().backend) == "cpu");
}

}  // namespace regla::test
