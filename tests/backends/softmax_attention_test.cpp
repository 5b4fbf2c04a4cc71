#include <limits>

#include "autograd/ops.h"
#include "tests/catch.h"
#include "tests/oracle.h"
#include "tests/support.h"

namespace regla::test {
namespace {

struct Case {
  int64_t T, length, capacity, window;
  bool hidden;
};

/// For each query the first key it may see: its own document's, here of about 9 tokens.
Tensor first_keys(int64_t B, const Case& c) {
  Tensor first = Tensor::empty({B, c.T}, DType::I32);
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t t = 0; t < c.T; ++t) {
      const int64_t own = c.length - c.T + t;
      first.data<int32_t>()[b * c.T + t] = static_cast<int32_t>(own - own % (9 - b));
    }
  }
  return first;
}

void check_case(const Case& c) {
  const int64_t B = 2, H = 2, K = 6, V = 5;
  const double scale = 0.4;
  const Tensor q = normal_tensor({B, c.T, H, K}, DType::F64, 1);
  Tensor k = normal_tensor({B, c.capacity, H, K}, DType::F64, 2);
  Tensor v = normal_tensor({B, c.capacity, H, V}, DType::F64, 3);
  const Tensor d_o = normal_tensor({B, c.T, H, V}, DType::F64, 4);
  const Tensor first = c.hidden ? first_keys(B, c) : Tensor{};
  const SoftmaxOracle expected =
      softmax_oracle({B, c.T, c.capacity, c.length, H, K, V, c.window, scale, q.values(),
                      k.values(), v.values(), first ? first.values() : Numbers{}, d_o.values()});
  // Spare room may hold anything.
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t s = c.length; s < c.capacity; ++s) {
      k.slice(b, b + 1).reshape({c.capacity, H * K}).slice(s, s + 1).fill(NAN);
      v.slice(b, b + 1).reshape({c.capacity, H * V}).slice(s, s + 1).fill(NAN);
    }
  }
  for (DType dtype : {DType::F64, DType::F32}) {
    Tape tape;
    const Var vq = tape.leaf(converted(q, dtype)), vk = tape.leaf(converted(k, dtype)),
              vv = tape.leaf(converted(v, dtype));
    const Var o = softmax_attention(vq, vk, vv, first, c.window, scale, c.length);
    tape.backward({o}, {converted(d_o, dtype)});
    const double bound = dtype == DType::F64 ? 1e-10 : 1e-4;
    INFO("T " << c.T << ", length " << c.length << " of " << c.capacity << ", window " << c.window
              << ", hidden " << c.hidden << ", " << name_of(dtype));
    CHECK(relative_error(o.value.values(), expected.o) < bound);
    CHECK(relative_error(tape.gradient(vv).values(), expected.d_v) < bound);
    const auto small = [](const Numbers& x) {
      return std::all_of(x.begin(), x.end(), [](double e) { return std::abs(e) < 1e-12; });
    };
    if (small(expected.d_q)) {  // one key each: nothing to choose
      CHECK(dot(tape.gradient(vq), tape.gradient(vq)) < 1e-10);
      CHECK(dot(tape.gradient(vk), tape.gradient(vk)) < 1e-10);
    } else {
      CHECK(relative_error(tape.gradient(vq).values(), expected.d_q) < bound);
      CHECK(relative_error(tape.gradient(vk).values(), expected.d_k) < bound);
    }
  }
}

}  // namespace

TEST_CASE("softmax attention is the naive sum") {
  for (int64_t T : {1, 7, 64, 65, 150}) {
    for (int64_t past : {0, 1, 30}) {
      for (int64_t spare : {0, 5}) {
        for (int64_t window : {0, 1, 2, 17, 64, 1000}) {
          for (bool hidden : {false, true}) {
            check_case({T, T + past, T + past + spare, window, hidden});
          }
        }
      }
    }
  }
}

TEST_CASE("softmax attention with large scores is finite and picks the largest") {
  for (DType dtype : {DType::F64, DType::F32}) {
    Tape tape;
    const Var q = tape.leaf(Tensor::full({1, 3, 1, 1}, 1, dtype));
    const Var k =
        tape.leaf(converted(Tensor::of({1, 3, 1, 1}, std::vector<double>{1e4, -1e4, 3e4}), dtype));
    const Var v =
        tape.leaf(converted(Tensor::of({1, 3, 1, 1}, std::vector<double>{1, 2, 3}), dtype));
    const Var o = softmax_attention(q, k, v, {}, 0, 1);
    CHECK(o.value.values() == Numbers{1, 1, 3});
    tape.backward({o}, {Tensor::full({1, 3, 1, 1}, 1, dtype)});
    for (const Var& var : {q, k, v}) CHECK(all_finite(tape.gradient(var)));
    CHECK(tape.gradient(v).values() == Numbers{2, 0, 1});
  }
}

}  // namespace regla::test
