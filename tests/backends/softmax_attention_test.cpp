#include <limits>

#include "autograd/ops.h"
#include "backends/copies.h"
#include "tests/catch.h"
#include "tests/oracle.h"
#include "tests/sequence.h"
#include "tests/support.h"

namespace regla::test {
namespace {

struct Case {
  int64_t T, length, window;
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
  const Tensor k = normal_tensor({B, c.length, H, K}, DType::F64, 2);
  const Tensor v = normal_tensor({B, c.length, H, V}, DType::F64, 3);
  const Tensor d_o = normal_tensor({B, c.T, H, V}, DType::F64, 4);
  const Tensor first = c.hidden ? first_keys(B, c) : Tensor{};
  const SoftmaxOracle expected =
      softmax_oracle({B, c.T, c.length, c.length, H, K, V, c.window, scale, q.values(), k.values(),
                      v.values(), first ? first.values() : Numbers{}, d_o.values()});
  for (DType dtype : {DType::F64, DType::F32}) {
    Tape tape;
    const Var vq = tape.leaf(converted(q, dtype)), vk = tape.leaf(converted(k, dtype)),
              vv = tape.leaf(converted(v, dtype));
    const Var o = softmax_attention(vq, vk, vv, first, c.window, scale);
    tape.backward({o}, {converted(d_o, dtype)});
    const double bound = dtype == DType::F64 ? 1e-10 : 1e-4;
    INFO("T " << c.T << ", length " << c.length << ", window " << c.window << ", hidden "
              << c.hidden << ", " << name_of(dtype));
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
      for (int64_t window : {0, 1, 2, 17, 64, 1000}) {
        for (bool hidden : {false, true}) check_case({T, T + past, window, hidden});
      }
    }
  }
}

TEST_CASE("one token after those in a cache is the naive sum, and is in the cache then") {
  const int64_t B = 2, H = 2, K = 6, V = 5, capacity = 40;
  for (int64_t used : {0, 1, 7, 39}) {
    for (int64_t window : {0, 1, 2, 17}) {
      for (bool hidden : {false, true}) {
        const Case c = {1, used + 1, window, hidden};
        const Tensor q = normal_tensor({B, 1, H, K}, DType::F64, 1);
        const Tensor k = normal_tensor({B, used + 1, H, K}, DType::F64, 2);
        const Tensor v = normal_tensor({B, used + 1, H, V}, DType::F64, 3);
        const Tensor first = c.hidden ? first_keys(B, c) : Tensor::zeros({B, 1}, DType::I32);
        const SoftmaxOracle expected =
            softmax_oracle({B, 1, used + 1, used + 1, H, K, V, window, 0.4, q.values(), k.values(),
                            v.values(), first.values(), Numbers(B * H * V)});
        Tensor positions = Tensor::empty({B, 1}, DType::I32);
        for (int64_t b = 0; b < B; ++b) {  // a sequence may be older than its cache
          const int32_t seen = static_cast<int32_t>(used) - first.data<int32_t>()[b];
          positions.data<int32_t>()[b] = hidden ? seen : seen + 100;
        }
        for (DType dtype : {DType::F64, DType::F32}) {
          const Tensor keys = converted(k, dtype), values = converted(v, dtype);
          // The room behind the entries may hold anything.
          const KeyValueCache cache = {Tensor::full({B, capacity, H, K}, NAN, dtype),
                                       Tensor::full({B, capacity, H, V}, NAN, dtype),
                                       Tensor::full({1}, used, DType::I32)};
          copy_rows(keys, 0, used, cache.keys, 0);
          copy_rows(values, 0, used, cache.values, 0);
          const Tensor o = softmax_attention_step(converted(q, dtype), tokens(keys, used, used + 1),
                                                  tokens(values, used, used + 1), cache,
                                                  {positions}, window, 0.4);
          INFO("used " << used << ", window " << window << ", hidden " << hidden << ", "
                       << name_of(dtype));
          CHECK(relative_error(o.values(), expected.o) < (dtype == DType::F64 ? 1e-10 : 1e-4));
          CHECK(cache.used.values() == Numbers{static_cast<double>(used + 1)});
          CHECK(same_bits(tokens(cache.keys, 0, used + 1), keys));
          CHECK(same_bits(tokens(cache.values, 0, used + 1), values));
        }
      }
    }
  }
}

TEST_CASE("a cache that is full takes no token") {
  const Tensor x = normal_tensor({1, 1, 1, 2}, DType::F32, 1);
  const KeyValueCache cache = {Tensor::zeros({1, 3, 1, 2}, DType::F32),
                               Tensor::zeros({1, 3, 1, 2}, DType::F32),
                               Tensor::full({1}, 3, DType::I32)};
  const Tensor position = Tensor::full({1, 1}, 3, DType::I32);
  CHECK(error_of([&] { softmax_attention_step(x, x, x, cache, {position}, 0, 1); }) ==
        "[softmax_attention_step] expected fewer than 3 entries in use, got 3");
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
