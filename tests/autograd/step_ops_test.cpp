// Ops of a decoding step are one kernel where others are several: they give the same.

#include <vector>

#include "autograd/ops.h"
#include "backends/copies.h"
#include "tests/catch.h"
#include "tests/support.h"

namespace regla::test {
namespace {

Tensor of(const Shape& shape, DType dtype, uint64_t seed) {
  return converted(normal_tensor(shape, DType::F32, seed), dtype);
}

constexpr DType kTypes[] = {DType::F64, DType::F32, DType::BF16};

}  // namespace

TEST_CASE("a step's linear layers are norm, product, GELU and sum, to the bit") {
  const NoGrad guard;
  for (const DType A : kTypes) {
    const DType S = sum_type(A);
    INFO(name_of(A));
    const Var x = of({3, 24}, S, 1), gain = of({24}, S, 2), bias = of({24}, S, 3);
    const Var first = of({40, 24}, A, 4), first_bias = of({40}, S, 5), second = of({24, 24}, A, 6);
    const Var normed = layer_norm(x, gain, bias, 1e-5, A);
    const Tensors two =
        linear_step(x, {gain, bias, 1e-5}, {{first, first_bias, A}, {second, {}, S}}, A);
    CHECK(same_bits(two[0], linear(normed, first, first_bias).value));
    CHECK(same_bits(two[1], linear(normed, second, {}, S).value));
    for (const Gelu kind : {Gelu::Erf, Gelu::Tanh}) {
      const Var hidden = gelu(linear(normed, first, first_bias), kind);
      const Tensors activated =
          linear_step(x, {gain, bias, 1e-5}, {{first, first_bias, A}}, A, kind);
      CHECK(same_bits(activated[0], hidden.value));
    }
    const Tensors added = linear_step(normed, {}, {{second, bias, A}}, A, {}, x);
    CHECK(same_bits(added[0], add(x, linear(normed, second, bias)).value));
    const Tensors both = linear_step(normed, {}, {{second, bias, A}}, A, Gelu::Erf, x);
    CHECK(same_bits(both[0], add(x, gelu(linear(normed, second, bias), Gelu::Erf)).value));
  }
}

TEST_CASE("ReGLA's step is its features, gate, recurrence, norm and output gate, to the bit") {
  const NoGrad guard;
  for (const DType A : kTypes) {
    for (const bool gated : {false, true}) {
      const DType S = sum_type(A);
      INFO(name_of(A) << ", gated " << gated);
      const Shape values = {2, 1, 3, 8};
      const Tensor positions = Tensor::of({2, 1}, std::vector<int32_t>{5, 300});
      const ReglaToken t = {of({2, 1, 3, 4}, S, 1), of({2, 1, 3, 4}, S, 2),
                            of(values, A, 3),       of(values, A, 4),
                            of(values, A, 5),       gated ? Var(of(values, A, 6)) : Var{},
                            {positions, 4},         0.3};
      const HeadNorm norm = gated ? HeadNorm{of({3, 8}, S, 7), 1e-6, false} : HeadNorm{};
      const Tensor m = of({2, 3}, S, 8), state = of({2, 3, 4, 8}, S, 9);
      const Tensor m_after = m.clone(), state_after = state.clone();
      const Tensor y = regla_step(t, norm, m_after, state_after);

      const SafeExp q = safe_exp(t.z_q, {}, {}, Maximum::Token, t.scale, A, t.rotation);
      const SafeExp k = safe_exp(t.z_k, m, {}, Maximum::Running, 1, A, t.rotation);
      const LogDecays decays = {{}, refined_gate(t.z_g, t.z_r), k.log_rho};
      const Tensor moved = state.clone();
      Var o = linear_attention_step(q.features, k.features, t.v, decays, {}, moved);
      if (gated) o = swish_gate(head_norm(o, norm.gain, norm.epsilon, norm.center), t.z_o);
      CHECK(same_bits(y, o.value));
      CHECK(same_bits(m_after, k.m.value));
      CHECK(same_bits(state_after, moved));
    }
  }
}

TEST_CASE("a step of softmax attention turns its query and key as the rotation does") {
  const NoGrad guard;
  for (const DType A : kTypes) {
    const Tensor positions = Tensor::of({2, 1}, std::vector<int32_t>{3, 2});
    const auto cache = [&] {
      return KeyValueCache{of({2, 6, 3, 8}, A, 4), of({2, 6, 3, 4}, A, 5),
                           Tensor::full({1}, 3, DType::I32)};
    };
    const Var q = of({2, 1, 3, 8}, A, 1), k = of({2, 1, 3, 8}, A, 2), v = of({2, 1, 3, 4}, A, 3);
    const Rotation rotation = {positions, 6};
    const KeyValueCache turned = cache(), expected = cache();
    const Tensor o = softmax_attention_step(q, k, v, turned, rotation, 0, 0.4);
    const Tensor plain = softmax_attention_step(rope(q, rotation), rope(k, rotation), v, expected,
                                                {positions}, 0, 0.4);
    CHECK(same_bits(o, plain));
    CHECK(same_bits(turned.keys, expected.keys));
    CHECK(same_bits(turned.values, expected.values));
  }
}

}  // namespace regla::test
