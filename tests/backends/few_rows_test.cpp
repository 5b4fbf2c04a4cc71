#include "backends/cpu/few_rows.h"

#include <cmath>

#include "backends/copies.h"
#include "backends/kernels.h"
#include "core/parallel.h"
#include "tests/matchers.h"
#include "tests/support.h"

namespace regla::test {
namespace {

struct Sizes {
  int64_t M, N, K;
};

/// Around every size at which the kernel does something else: rows beyond the few, columns of one
/// block and of several, K below, at and beside multiples of a vector.
std::vector<Sizes> sizes() {
  std::vector<Sizes> list = {{1, 0, 5}, {0, 3, 5}, {3, 2, 0}};
  for (int64_t M = 1; M <= 9; ++M) {
    for (int64_t K : {1, 15, 16, 33, 100}) list.push_back({M, 13, K});
    list.push_back({M, 701, 211});
  }
  list.push_back({1, 3, 33001});  // fewer rows than pieces
  return list;
}

MatmulArgs arguments(const Sizes& n, DType a, DType b, bool bias) {
  return {.a = normal_tensor({n.M, n.K}, a, 1),
          .b = converted(normal_tensor({n.N, n.K}, DType::F32, 2), b),
          .bias = bias ? normal_tensor({n.N}, a, 3) : Tensor{},
          .transpose_b = true};
}

Tensor product(const MatmulArgs& args, const Tensor& before) {
  const Shape shape = {args.a.dim(0), args.b.dim(0)};
  const Tensor out = before ? before.clone() : Tensor::full(shape, NAN, args.a.dtype());
  kernels({}).matmul(args, {out, before.defined()});
  return out;
}

/// The same by loops in double.
std::vector<double> exact(const MatmulArgs& args, const Tensor& before) {
  const std::vector<double> a = args.a.values(), b = args.b.values();
  const auto M = static_cast<size_t>(args.a.dim(0)), N = static_cast<size_t>(args.b.dim(0));
  const auto K = static_cast<size_t>(args.a.dim(1));
  std::vector<double> out = before ? before.values() : std::vector<double>(M * N, 0);
  for (size_t m = 0; m < M; ++m) {
    for (size_t n = 0; n < N; ++n) {
      double sum = args.bias ? args.bias.values()[n] : 0;
      for (size_t k = 0; k < K; ++k) sum += a[m * K + k] * b[n * K + k];
      out[m * N + n] += sum;
    }
  }
  return out;
}

const std::pair<DType, DType> kTypes[] = {
    {DType::F32, DType::F32}, {DType::F64, DType::F64}, {DType::F32, DType::BF16}};

}  // namespace

TEST_CASE("a product of few rows is a sum of products") {
  for (const Sizes& n : sizes()) {
    for (const auto& [a, b] : kTypes) {
      for (int flags = 0; flags < 4; ++flags) {
        const MatmulArgs args = arguments(n, a, b, flags & 1);
        const Tensor before = flags & 2 ? normal_tensor({n.M, n.N}, a, 4) : Tensor{};
        INFO(n.M << " x " << n.N << " x " << n.K << ", " << name_of(b) << ", flags " << flags);
        const double bound = a == DType::F64 ? 1e-13 : 2e-6;
        CHECK(relative_error(product(args, before).values(), exact(args, before)) < bound);
      }
    }
  }
}

TEST_CASE("a product of few rows has the same bits on any number of threads") {
  for (const auto& [a, b] : kTypes) {
    const int64_t M = b == DType::BF16 ? 5 : 1;
    const MatmulArgs args = arguments({M, 1501, 211}, a, b, true);
    Tensor one;
    {
      const Threads guard(1);
      one = product(args, {});
    }
    for (int count : {2, 3, 5}) {
      const Threads guard(count);
      CHECK(same_bits(product(args, {}), one));
    }
  }
}

TEST_CASE("a row of a product with BF16 is the same whatever rows are beside it") {
  constexpr int64_t kRows = cpu::kFewRows<BFloat16>;
  const MatmulArgs args = arguments({kRows, 37, 211}, DType::F32, DType::BF16, true);
  const Tensor all = product(args, {});
  for (int64_t m = 0; m < kRows; ++m) {
    MatmulArgs row = args;
    row.a = args.a.slice(m, m + 1);
    CHECK(same_bits(product(row, {}), all.slice(m, m + 1)));
  }
}

TEST_CASE("weights in BF16 give what their widened copies give, for many rows too") {
  for (const int64_t M : {1, 8, 9, 70, 1100}) {
    MatmulArgs args = arguments({M, 67, 129}, DType::F32, DType::BF16, true);
    const Tensor stored = product(args, {}), before = normal_tensor({M, 67}, DType::F32, 4);
    const Tensor added = product(args, before);
    args.b = converted(args.b, DType::F32);
    CHECK(relative_error(stored, product(args, {})) < 1e-6);
    CHECK(relative_error(added, product(args, before)) < 1e-6);
  }
  // B in several pieces: 9000 rows of 600 are more than four million elements.
  MatmulArgs args = arguments({9, 9000, 600}, DType::F32, DType::BF16, true);
  const Tensor stored = product(args, {});
  args.b = converted(args.b, DType::F32);
  CHECK(relative_error(stored, product(args, {})) < 1e-5);
}

TEST_CASE("a product with weights in BF16 is made one way only") {
  MatmulArgs args = arguments({3, 4, 5}, DType::F32, DType::BF16, false);
  args.b = args.b.reshape({5, 4});
  args.transpose_b = false;
  CHECK_THROWS_WITH(product(args, Tensor::zeros({3, 4}, DType::F32)), Contains("[matmul]"));
}

}  // namespace regla::test
