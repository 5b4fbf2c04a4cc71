#pragma once

#include <string>
#include <vector>

#include "tests/op_sample.h"

// Samples and refused calls of the ops behind the feature maps, gates and norms of the other linear
// attentions: more entries for the lists of all_ops.h and wrong_calls.h.
namespace regla::test {

inline void add_feature_map_samples(std::vector<OpSample>& list) {
  const auto push =
      [&](const std::string& op, const std::string& flags, const std::vector<Input>& inputs,
          const std::function<Vars(const Vars&)>& apply, const std::string& types = {}) {
        list.push_back({op, flags, inputs, apply, types});
      };
  // Even numbers of elements: no value lies on a kink at 0.
  push("relu", "", {{{3, 5, 2}}}, [](const Vars& in) -> Vars { return {relu(in[0])}; });
  push("elu_plus_one", "", {{{3, 5, 2}, -4, 4}},
       [](const Vars& in) -> Vars { return {elu_plus_one(in[0])}; });
  for (bool bias : {false, true}) {
    std::vector<Input> inputs = {{{2, 3, 3, 4}}, {{3 * 5, 4}}};
    if (bias) inputs.push_back(sums({3 * 5}));
    push("head_linear", bias ? "bias" : "no bias", inputs,
         [=](const Vars& in) -> Vars { return {head_linear(in[0], in[1], bias ? in[2] : Var{})}; });
  }
  push(
      "head_linear", "to sums", {{{2, 3, 3, 4}}, {{3 * 5, 4}}},
      [=](const Vars& in) -> Vars {
        return {head_linear(in[0], in[1], {}, sum_type(type_of(in[0])))};
      },
      "S");
  push("favor_exponent", "more features", {sums({2, 3, 2, 5}), {{2, 3, 2, 3}}},
       [](const Vars& in) -> Vars { return {favor_exponent(in[0], in[1])}; });
  push("favor_exponent", "as many, sums", {sums({2, 3, 2, 4}), sums({2, 3, 2, 4})},
       [](const Vars& in) -> Vars { return {favor_exponent(in[0], in[1])}; });
  for (bool joint : {false, true}) {
    for (const Input& z : {Input{{2, 3, 2, 5}}, sums({2, 3, 2, 5})}) {
      push("hedgehog", std::string(joint ? "joint" : "separate") + (z.is_sum ? ", sums" : ""),
           {z, activations()},
           [=](const Vars& in) -> Vars { return {hedgehog(in[0], joint, type_of(in[1]))}; });
    }
  }
  for (const Input& z : {Input{{2, 3, 2, 5}, -9, 9}, sums({2, 3, 2, 5}, -9, 9)}) {
    push("cos_sin", z.is_sum ? "sums" : "", {z, activations()},
         [](const Vars& in) -> Vars { return {cos_sin(in[0], type_of(in[1]))}; });
  }
  for (int64_t nu : {1, 3, 7}) {
    push("dpfp", "nu " + std::to_string(nu), {{{3, 2, 4}}},
         [=](const Vars& in) -> Vars { return {dpfp(in[0], nu)}; });
  }
}

inline void add_mixer_gate_samples(std::vector<OpSample>& list) {
  for (bool per_head : {false, true}) {
    const Shape gate = per_head ? Shape{2, 3, 2} : Shape{2, 3, 2, 5};
    list.push_back({"write_gate",
                    per_head ? "per head" : "per component",
                    {{{2, 3, 2, 5}}, per_head ? sums(gate, -3, 0) : Input{gate, -3, 0}},
                    [](const Vars& in) -> Vars { return {write_gate(in[0], in[1])}; }});
  }
  list.push_back({"swish_gate", "", {{{5, 7}}, {{5, 7}, -6, 6}}, [](const Vars& in) -> Vars {
                    return {swish_gate(in[0], in[1])};
                  }});
}

inline void add_sum_norm_samples(std::vector<OpSample>& list) {
  list.push_back({"append_one", "", {{{2, 3, 2, 3}}}, [](const Vars& in) -> Vars {
                    return {append_one(in[0])};
                  }});
  const auto bound = [](Tensor& o) {  // the normaliser below what it is divided by at least
    for (int64_t i = 3; i < o.numel(); i += 4) o.data<float>()[i] = -0.5f;
  };
  const auto push = [&](const std::string& flags, const Input& o, bool sign) {
    list.push_back(
        {"sum_norm", flags, {o}, [=](const Vars& in) -> Vars { return {sum_norm(in[0], sign)}; }});
  };
  push("non-negative", {{2, 3, 2, 4}, 0.1, 2}, false);
  push("non-negative, at the bound", {{2, 3, 2, 4}, -2, 2, true, bound}, false);
  push("changes sign", {{2, 3, 2, 4}, -3, 3}, true);
}

inline void add_mixer_samples(std::vector<OpSample>& list) {
  add_feature_map_samples(list);
  add_mixer_gate_samples(list);
  add_sum_norm_samples(list);
}

/// At sizes where work is split between threads and blocks.
inline void add_large_mixer_samples(std::vector<OpSample>& list) {
  const auto push = [&](const std::string& op, const std::vector<Input>& inputs,
                        const std::function<Vars(const Vars&)>& apply,
                        const std::string& types = {}) {
    list.push_back({op, "large", inputs, apply, types});
  };
  push("relu", {{{6, 9001}}}, [](const Vars& in) -> Vars { return {relu(in[0])}; });
  push("elu_plus_one", {{{6, 9001}, -90, 3}},
       [](const Vars& in) -> Vars { return {elu_plus_one(in[0])}; });
  push("head_linear", {{{3, 200, 3, 33}}, {{3 * 20, 33}}, sums({3 * 20})},
       [](const Vars& in) -> Vars { return {head_linear(in[0], in[1], in[2])}; });
  push("favor_exponent", {sums({3, 200, 3, 33}), {{3, 200, 3, 20}}},
       [](const Vars& in) -> Vars { return {favor_exponent(in[0], in[1])}; });
  for (bool joint : {false, true}) {
    push("hedgehog", {{{3, 200, 3, 33}, -20, 20}},
         [=](const Vars& in) -> Vars { return {hedgehog(in[0], joint)}; });
  }
  push("cos_sin", {{{3, 200, 3, 33}, -300, 300}},
       [](const Vars& in) -> Vars { return {cos_sin(in[0])}; });
  push("dpfp", {{{3, 200, 3, 34}}}, [](const Vars& in) -> Vars { return {dpfp(in[0], 3)}; });
  push("write_gate", {{{3, 200, 3, 33}}, sums({3, 200, 3}, -20, 0)},
       [](const Vars& in) -> Vars { return {write_gate(in[0], in[1])}; });
  push("write_gate", {{{3, 200, 3, 33}}, {{3, 200, 3, 33}, -20, 0}},
       [](const Vars& in) -> Vars { return {write_gate(in[0], in[1])}; });
  push("swish_gate", {{{7, 9001}}, {{7, 9001}, -30, 30}},
       [](const Vars& in) -> Vars { return {swish_gate(in[0], in[1])}; });
  push("append_one", {{{3, 400, 3, 33}}},
       [](const Vars& in) -> Vars { return {append_one(in[0])}; });
  push("sum_norm", {{{3, 400, 3, 34}, 0.1, 3}},
       [](const Vars& in) -> Vars { return {sum_norm(in[0], false)}; });
}

inline void add_mixer_wrong_calls(std::vector<WrongCall>& list) {
  const Refusals wrong{list};
  wrong("relu", "integers", [] { relu(i32({2})); });
  wrong("relu", "nothing", [] { relu({}); });
  wrong("elu_plus_one", "integers", [] { elu_plus_one(i32({2})); });
  const Var x = f32({2, 3, 2, 4});
  wrong("head_linear", "axes", [] { head_linear(f32({2, 3, 4}), f32({6, 4}), {}); });
  wrong("head_linear", "rows", [=] { head_linear(x, f32({5, 4}), {}); });
  wrong("head_linear", "inner size", [=] { head_linear(x, f32({6, 5}), {}); });
  wrong("head_linear", "bias", [=] { head_linear(x, f32({6, 4}), f32({5})); });
  wrong("head_linear", "types", [=] { head_linear(x, f64({6, 4}), {}); });
  wrong("favor_exponent", "rows", [=] { favor_exponent(x, f32({2, 3, 1, 4})); });
  wrong("favor_exponent", "axes", [=] { favor_exponent(x, f32({2, 3, 4})); });
  wrong("favor_exponent", "types", [=] { favor_exponent(x, f64({2, 3, 2, 4})); });
  wrong("hedgehog", "empty", [] { hedgehog(f32({2, 0}), false); });
  wrong("hedgehog", "integers", [] { hedgehog(i32({2, 2}), true); });
  wrong("cos_sin", "empty", [] { cos_sin(f32({2, 0})); });
  wrong("cos_sin", "nothing", [] { cos_sin({}); });
  wrong("dpfp", "nu 0", [=] { dpfp(x, 0); });
  wrong("dpfp", "nu too large", [=] { dpfp(x, 8); });
  wrong("dpfp", "empty", [] { dpfp(f32({2, 0}), 1); });
  wrong("write_gate", "per value", [=] { write_gate(x, f32({2, 3, 2, 5})); });
  wrong("write_gate", "per head", [=] { write_gate(x, f32({2, 3, 4})); });
  wrong("write_gate", "nothing", [=] { write_gate(x, {}); });
  wrong("write_gate", "types", [=] { write_gate(x, f64({2, 3, 2})); });
  wrong("swish_gate", "shapes", [=] { swish_gate(x, f32({2, 3, 8})); });
  wrong("swish_gate", "types", [=] { swish_gate(x, f64({2, 3, 2, 4})); });
  wrong("append_one", "integers", [] { append_one(i32({2, 3})); });
  wrong("append_one", "empty", [] { append_one(f32({2, 0})); });
  wrong("sum_norm", "no values", [] { sum_norm(f32({2, 1}), false); });
  wrong("sum_norm", "integers", [] { sum_norm(i32({2, 3}), true); });
}

}  // namespace regla::test
