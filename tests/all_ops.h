#pragma once

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "autograd/ops.h"
#include "tests/all_ops_mixers.h"
#include "tests/all_ops_rows.h"
#include "tests/all_ops_steps.h"
#include "tests/op_sample.h"

// One sample per op of autograd/ops.h and per value of each of its flags. Loops over the list give
// the gradient check, the F32-against-F64 check, the thread-count check, the accumulation check and
// the shape errors; a new op needs a sample here and nothing else.
namespace regla::test {

inline void add_product_samples(std::vector<OpSample>& list) {
  for (const Input& a : {Input{{3, 5, 7}}, sums({3, 5, 7})}) {
    const std::string flags = a.is_sum ? "sums" : "";
    list.push_back({"add", flags, {a, {{3, 5, 7}}}, [](const Vars& in) -> Vars {
                      return {add(in[0], in[1])};
                    }});
    list.push_back({"scale", flags, {a, activations()}, [](const Vars& in) -> Vars {
                      return {scale(in[0], -0.7, type_of(in[1]))};
                    }});
  }
  list.push_back({"reshape", "", {{{3, 5, 7}}}, [](const Vars& in) -> Vars {
                    return {reshape(in[0], {5, 21})};
                  }});
  list.push_back(
      {"linear", "bias", {{{2, 5, 7}}, {{11, 7}}, sums({11})}, [](const Vars& in) -> Vars {
         return {linear(in[0], in[1], in[2])};
       }});
  list.push_back({"linear",
                  "to sums",
                  {{{2, 5, 7}}, {{11, 7}}, sums({11})},
                  [](const Vars& in) -> Vars {
                    return {linear(in[0], in[1], in[2], sum_type(type_of(in[0])))};
                  },
                  "S"});
  list.push_back({"linear", "no bias", {{{13, 19}}, {{3, 19}}}, [](const Vars& in) -> Vars {
                    return {linear(in[0], in[1], {})};
                  }});
  list.push_back({"linear", "one row", {{{7}}, {{1, 7}}, sums({1})}, [](const Vars& in) -> Vars {
                    return {linear(in[0], in[1], in[2])};
                  }});
  // What reads the same x has its gradients computed together.
  list.push_back({"linear",
                  "three of one x",
                  {{{2, 5, 8}}, {{12, 8}}, sums({12}), {{4, 8}}, {{16, 8}}, sums({16})},
                  [](const Vars& in) -> Vars {
                    const DType S = sum_type(type_of(in[0]));
                    return {linear(in[0], in[1], in[2]), linear(in[0], in[3], {}, S),
                            linear(in[0], in[4], in[5])};
                  },
                  "ASA"});
  list.push_back({"linear",
                  "two of one x, and others",
                  {{{6, 7}}, {{5, 7}}, sums({5}), {{3, 7}}},
                  [](const Vars& in) -> Vars {
                    const Var first = linear(in[0], in[1], in[2]);
                    const Var between = gelu(in[0], Gelu::Tanh);
                    return {first, between, linear(in[0], in[3], {})};
                  }});
  for (const Gelu kind : {Gelu::Erf, Gelu::Tanh}) {
    list.push_back(
        {"gelu",
         kind == Gelu::Erf ? "of a linear layer" : "tanh, of a linear layer",
         {{{2, 5, 7}}, {{11, 7}}, sums({11})},
         [=](const Vars& in) -> Vars { return {gelu(linear(in[0], in[1], in[2]), kind)}; }});
  }
  list.push_back({"linear", "of its own weight", {{{6, 6}}}, [](const Vars& in) -> Vars {
                    return {linear(in[0], in[0], {})};
                  }});
  list.push_back({"linear",
                  "weight in BF16",
                  {constant({2, 5, 7}, DType::F32), constant({11, 7}, DType::BF16),
                   constant({11}, DType::F32)},
                  [](const Vars& in) -> Vars { return {linear(in[0], in[1], in[2])}; },
                  "S"});
  list.push_back({"embedding",
                  "in BF16",
                  {constant({7, 5}, DType::BF16), integers(random_ids({3, 11}, 1, 7))},
                  [](const Vars& in) -> Vars { return {embedding(in[1].value, in[0])}; }});
  // Row 6 is never used.
  list.push_back({"embedding",
                  "",
                  {sums({7, 5}), integers(random_ids({3, 11}, 1, 6))},
                  [](const Vars& in) -> Vars { return {embedding(in[1].value, in[0])}; }});
}

/// Targets in [0, vocab) with a -1 here and there.
inline Tensor some_targets(const Shape& shape, int64_t vocab) {
  Tensor targets = random_ids(shape, 5, vocab);
  for (int64_t i = 1; i < targets.numel(); i += 4) targets.data<int32_t>()[i] = -1;
  return targets;
}

inline void add_loss_samples(std::vector<OpSample>& list) {
  const Input hidden = {{3, 5, 7}}, weight = {{11, 7}},
              targets = integers(some_targets({3, 5}, 11));
  for (int64_t count : {0, 9}) {
    list.push_back({"cross_entropy",
                    "count " + std::to_string(count),
                    {hidden, weight, targets},
                    [=](const Vars& in) -> Vars {
                      return {cross_entropy(in[0], in[1], in[2].value, count)};
                    }});
  }
  list.push_back({"cross_entropy",
                  "nothing counts",
                  {hidden, weight, integers(Tensor::zeros({3, 5}, DType::I32)),
                   integers(Tensor::full({3, 5}, -1, DType::I32))},
                  [](const Vars& in) -> Vars {
                    return {cross_entropy(in[0], in[1], in[2].value, 0),
                            cross_entropy(in[0], in[1], in[3].value, 0)};
                  }});
  const auto rows = [](const Vars& in) -> Vars {
    return {cross_entropy_rows(in[0].value, in[1].value, in[2].value)};
  };
  list.push_back({"cross_entropy_rows",
                  "",
                  {{{3, 5, 7}, -2, 2, false}, {{11, 7}, -2, 2, false}, targets},
                  rows});
  list.push_back({"cross_entropy_rows",
                  "weight in BF16",
                  {constant({3, 5, 7}, DType::F32), constant({11, 7}, DType::BF16), targets},
                  rows});
}

inline void add_distillation_samples(std::vector<OpSample>& list) {
  const auto constant_of = [](const Shape& shape) { return Input{shape, -2, 2, false}; };
  for (const double temperature : {1.0, 2.5}) {
    list.push_back({"distillation",
                    "temperature " + std::to_string(temperature),
                    {{{3, 5, 7}},
                     {{11, 7}},
                     constant_of({3, 5, 6}),
                     constant_of({11, 6}),
                     integers(some_targets({3, 5}, 11))},
                    [=](const Vars& in) -> Vars {
                      return {distillation(in[0], in[1], in[2].value, in[3].value, in[4].value,
                                           temperature, 9)};
                    },
                    "D"});
  }
  const auto error = [](const Vars& in) -> Vars { return {relative_error(in[0], in[1].value)}; };
  list.push_back({"relative_error", "", {{{3, 5, 7}}, constant_of({3, 5, 7})}, error, "D"});
  Input nothing = constant_of({3, 5});
  nothing.edit = [](Tensor& y) { y.fill(0); };
  list.push_back({"relative_error", "from nothing", {{{3, 5}}, nothing}, error, "D"});
}

inline void add_gate_samples(std::vector<OpSample>& list) {
  list.push_back({"sigmoid", "", {{{5, 17}, -12, 12}}, [](const Vars& in) -> Vars {
                    return {sigmoid(in[0])};
                  }});
  for (const Input& z : {Input{{5, 17}, -12, 12}, sums({5, 17}, -12, 12)}) {
    const std::string flags = z.is_sum ? "sums" : "";
    list.push_back({"log_sigmoid", flags, {z, activations()}, [](const Vars& in) -> Vars {
                      return {log_sigmoid(in[0], type_of(in[1]))};
                    }});
    list.push_back({"refined_gate", flags, {z, z, activations()}, [](const Vars& in) -> Vars {
                      return {refined_gate(in[0], in[1], type_of(in[2]))};
                    }});
  }
  list.push_back({"refined_gate",
                  "extremes",
                  {{{5, 17}, -60, 60}, {{5, 17}, -60, 60}},
                  [](const Vars& in) -> Vars { return {refined_gate(in[0], in[1])}; }});
}

inline void add_safe_exp_samples(std::vector<OpSample>& list) {
  const auto name = [](Maximum maximum) {
    return maximum == Maximum::Running ? "running"
           : maximum == Maximum::Token ? "token"
                                       : "sequence";
  };
  // One head of the state has seen nothing, one is overtaken soon, one never.
  const auto seen = [](Tensor& m0) {
    m0.data<float>()[0] = -std::numeric_limits<float>::infinity();
    m0.data<float>()[1] = -0.5f;
    m0.data<float>()[2] = 3;
  };
  const Input z = {{2, 5, 3, 4}}, m0 = {.shape = {2, 3}, .edit = seen, .is_sum = true};
  for (Maximum maximum : {Maximum::Running, Maximum::Sequence, Maximum::Token}) {
    for (bool reset : {false, true}) {
      std::vector<Input> inputs = {z};
      if (reset) inputs.push_back(integers(random_mask({2, 5}, 4, 0.4)));
      const auto mask = [=](const Vars& in) { return reset ? in[1].value : Tensor{}; };
      const std::string flags = std::string(name(maximum)) + (reset ? ", reset" : "");
      const auto outputs = [](const SafeExp& out) -> Vars {
        return {out.features, out.log_rho, out.m};
      };
      list.push_back({"safe_exp", flags, inputs, [=](const Vars& in) -> Vars {
                        return outputs(safe_exp(in[0], {}, mask(in), maximum, 0.7));
                      }});
      if (maximum == Maximum::Token) continue;
      inputs.push_back(m0);
      list.push_back({"safe_exp", flags + ", m0", inputs, [=](const Vars& in) -> Vars {
                        return outputs(safe_exp(in[0], in.back(), mask(in), maximum, 0.7));
                      }});
    }
    for (int64_t rotary : {2, 4}) {
      const Input positions = integers(random_ids({2, 5}, 3, 300));
      list.push_back(
          {"safe_exp",
           std::string(name(maximum)) + ", turned " + std::to_string(rotary),
           {z, positions},
           [=](const Vars& in) {
             const SafeExp out = safe_exp(in[0], {}, {}, maximum, 0.7, {}, {in[1].value, rotary});
             return Vars{out.features, out.log_rho, out.m};
           }});
    }
  }
}

/// The inputs q, k, u, then the decays that `decays` names by letter, then a state, then a mask.
struct AttentionSizes {
  int64_t B = 2, T = 7, H = 3, K = 3, V = 5;
};
inline std::vector<Input> attention_inputs(const AttentionSizes& n, const std::string& decays,
                                           bool state, const Tensor& reset) {
  std::vector<Input> inputs = {
      {{n.B, n.T, n.H, n.K}}, {{n.B, n.T, n.H, n.K}}, {{n.B, n.T, n.H, n.V}}};
  for (char axis : decays) {
    const Shape shape = axis == 'a'   ? Shape{n.B, n.T, n.H, n.K}
                        : axis == 'b' ? Shape{n.B, n.T, n.H, n.V}
                                      : Shape{n.B, n.T, n.H};
    inputs.push_back(axis == 's' ? sums(shape, -1.5, 0) : Input{shape, -1.5, 0});
  }
  if (state) inputs.push_back(sums({n.B, n.H, n.K, n.V}));
  if (reset) inputs.push_back(integers(reset));
  return inputs;
}

/// Takes the inputs apart again.
struct AttentionInputs {
  LogDecays decays;
  Var state;
  Tensor reset;
  AttentionInputs(const Vars& in, const std::string& names) {
    size_t next = 3;
    for (char axis : names) {
      Var& decay = axis == 'a' ? decays.key : axis == 'b' ? decays.value : decays.scalar;
      decay = in[next++];
    }
    if (next < in.size() && in[next].value.dtype() != DType::I32) state = in[next++];
    if (next < in.size()) reset = in[next].value;
  }
};

inline OpSample linear_attention_sample(const AttentionSizes& n, const std::string& decays,
                                        bool with_reset, bool with_state, int64_t chunk) {
  const Tensor reset = with_reset ? random_mask({n.B, n.T}, 6, 0.3) : Tensor{};
  const std::string flags = "decays " + (decays.empty() ? "none" : decays) +
                            (with_reset ? ", reset" : "") + (with_state ? ", state" : "") +
                            ", chunk " + std::to_string(chunk);
  return {"linear_attention", flags, attention_inputs(n, decays, with_state, reset),
          [=](const Vars& in) -> Vars {
            const AttentionInputs rest(in, decays);
            const Recurrence out =
                linear_attention(in[0], in[1], in[2], rest.decays, rest.reset, rest.state, chunk);
            return {out.o, out.state};
          }};
}

/// Of one token in each of two sequences, of which the second begins anew.
inline Tensor second_begins() { return Tensor::of({2, 1}, std::vector<int32_t>{0, 1}); }

/// The inputs q, k, v, g, then a state, then a mask. Keys are short: |k|^2 above 2 / g makes the
/// state grow.
inline std::vector<Input> delta_rule_inputs(const AttentionSizes& n, double key, bool state,
                                            const Tensor& reset) {
  std::vector<Input> inputs = {{{n.B, n.T, n.H, n.K}},
                               {{n.B, n.T, n.H, n.K}, -key, key},
                               {{n.B, n.T, n.H, n.V}},
                               sums({n.B, n.T, n.H}, 0, 1)};
  if (state) inputs.push_back(sums({n.B, n.H, n.K, n.V}));
  if (reset) inputs.push_back(integers(reset));
  return inputs;
}

inline OpSample delta_rule_sample(const AttentionSizes& n, double key, bool with_reset,
                                  bool with_state, int64_t chunk) {
  const Tensor reset = with_reset ? random_mask({n.B, n.T}, 6, 0.3) : Tensor{};
  const std::string flags = std::string(with_reset ? "reset, " : "") +
                            (with_state ? "state, " : "") + "chunk " + std::to_string(chunk);
  return {"delta_rule", flags, delta_rule_inputs(n, key, with_state, reset),
          [=](const Vars& in) -> Vars {
            const Var state = with_state ? in[4] : Var{};
            const Tensor mask = with_reset ? in.back().value : Tensor{};
            const Recurrence out = delta_rule(in[0], in[1], in[2], in[3], mask, state, chunk);
            return {out.o, out.state};
          }};
}

inline void add_delta_rule_samples(std::vector<OpSample>& list) {
  for (bool reset : {false, true}) {
    for (bool state : {false, true}) list.push_back(delta_rule_sample({}, 0.8, reset, state, 3));
  }
  list.push_back(delta_rule_sample({1, 21, 1, 2, 3}, 0.8, true, true, 0));
  AttentionSizes one;
  one.T = 1;
  std::vector<Input> inputs = delta_rule_inputs(one, 0.8, true, second_begins());
  for (Input& input : inputs) input.differentiable = false;
  list.push_back({"delta_rule_step", "", inputs, [](const Vars& in) -> Vars {
                    const NoGrad guard;
                    Tensor state = in[4].value.clone();
                    return {delta_rule_step(in[0], in[1], in[2], in[3], in[5].value, state), state};
                  }});
}

inline void add_attention_samples(std::vector<OpSample>& list) {
  for (const char* decays : {"", "s", "a", "b", "ab", "as", "bs", "abs"}) {
    for (bool reset : {false, true}) {
      for (bool state : {false, true}) {
        list.push_back(linear_attention_sample({}, decays, reset, state, 3));
      }
    }
    list.push_back(linear_attention_sample({1, 21, 1, 2, 3}, decays, true, true, 0));
    AttentionSizes one;
    one.T = 1;
    std::vector<Input> inputs = attention_inputs(one, decays, true, second_begins());
    for (Input& input : inputs) input.differentiable = false;
    list.push_back({"linear_attention_step", "decays " + std::string(decays), inputs,
                    [=](const Vars& in) -> Vars {
                      const NoGrad guard;
                      const AttentionInputs rest(in, decays);
                      Tensor state = rest.state.value.clone();
                      const Tensor o = linear_attention_step(in[0], in[1], in[2], rest.decays,
                                                             rest.reset, state);
                      return {o, state};
                    }});
  }
  add_delta_rule_samples(list);
  const std::vector<Input> qkv = {{{2, 5, 3, 4}}, {{2, 9, 3, 4}}, {{2, 9, 3, 2}}};
  for (int64_t window : {0, 1, 3}) {
    for (bool hidden : {false, true}) {
      std::vector<Input> inputs = qkv;
      if (hidden) {
        Tensor first = i32({2, 5});
        for (int64_t i = 3; i < 10; ++i) {
          first.data<int32_t>()[i] = static_cast<int32_t>(4 + i % 5 / 2);
        }
        inputs.push_back(integers(first));
      }
      const std::string flags = "window " + std::to_string(window) + (hidden ? ", first" : "");
      list.push_back({"softmax_attention", flags, inputs, [=](const Vars& in) -> Vars {
                        return {softmax_attention(in[0], in[1], in[2],
                                                  hidden ? in[3].value : Tensor{}, window, 0.6)};
                      }});
    }
    std::vector<Input> inputs = {
        {{2, 1, 3, 4}}, {{2, 1, 3, 4}}, {{2, 1, 3, 2}}, {{2, 9, 3, 4}}, {{2, 9, 3, 2}}};
    for (Input& input : inputs) input.differentiable = false;
    inputs.push_back(integers(Tensor::full({1}, 6, DType::I32)));
    inputs.push_back(integers(Tensor::of({2, 1}, std::vector<int32_t>{6, 2})));
    list.push_back({"softmax_attention_step", "window " + std::to_string(window), inputs,
                    [=](const Vars& in) -> Vars {
                      const NoGrad guard;
                      const KeyValueCache cache = {in[3].value.clone(), in[4].value.clone(),
                                                   in[5].value.clone()};
                      const Tensor o = softmax_attention_step(in[0], in[1], in[2], cache,
                                                              {in[6].value}, window, 0.6);
                      return {o, cache.keys, cache.values};
                    }});
  }
}

inline void add_sequence_samples(std::vector<OpSample>& list) {
  list.push_back({"concatenate", "", {{{2, 3, 5}}, {{2, 4, 5}}}, [](const Vars& in) -> Vars {
                    return {concatenate(in[0], in[1])};
                  }});
  list.push_back(
      {"concatenate", "rank 2, a empty", {{{2, 0}}, {{2, 4}}}, [](const Vars& in) -> Vars {
         return {concatenate(in[0], in[1])};
       }});
  list.push_back({"concatenate", "a absent", {{{2, 4, 5}}}, [](const Vars& in) -> Vars {
                    return {concatenate({}, in[0])};
                  }});
  for (int64_t count : {0, 2, 4}) {
    list.push_back(
        {"last", std::to_string(count) + " of 4", {{{2, 4, 3}}}, [=](const Vars& in) -> Vars {
           return {last(in[0], count)};
         }});
  }
}

/// Every op with every flag, at awkward sizes that a gradient check can afford.
inline std::vector<OpSample> all_ops() {
  std::vector<OpSample> list;
  add_product_samples(list);
  add_row_samples(list);
  add_loss_samples(list);
  add_distillation_samples(list);
  add_gate_samples(list);
  add_safe_exp_samples(list);
  add_attention_samples(list);
  add_step_samples(list);
  add_sequence_samples(list);
  add_mixer_samples(list);
  return list;
}

/// The ops at sizes where work is split between threads, tiles, blocks and slices.
inline std::vector<OpSample> large_ops() {
  std::vector<OpSample> list;
  const auto push = [&](const std::string& op, const std::string& flags,
                        const std::vector<Input>& inputs,
                        const std::function<Vars(const Vars&)>& apply) {
    list.push_back({op, flags, inputs, apply});
  };
  for (const Shape& s : {Shape{64, 64, 4096}, Shape{32, 64, 4096}, Shape{1, 48, 3000},
                         Shape{700, 150, 90}, Shape{5, 3000, 33}, Shape{3, 700, 300}}) {
    push("linear", s.text(), {{{s[0], s[2]}}, {{s[1], s[2]}}, sums({s[1]})},
         [](const Vars& in) -> Vars { return {linear(in[0], in[1], in[2])}; });
  }
  push("layer_norm", "many rows", {{{3000, 33}}, sums({33}), sums({33})},
       [](const Vars& in) -> Vars { return {layer_norm(in[0], in[1], in[2], 1e-5)}; });
  push("head_norm", "many rows", {{{3, 300, 5, 19}}, sums({5, 19})},
       [](const Vars& in) -> Vars { return {head_norm(in[0], in[1], 1e-8, false)}; });
  push("cross_entropy", "several slices",
       {{{250, 8}}, {{40000, 8}}, integers(some_targets({250}, 40000))},
       [](const Vars& in) -> Vars { return {cross_entropy(in[0], in[1], in[2].value)}; });
  push("distillation", "several slices",
       {{{250, 8}},
        {{40000, 8}},
        {{250, 5}, -2, 2, false},
        {{40000, 5}, -2, 2, false},
        integers(some_targets({250}, 40000))},
       [](const Vars& in) -> Vars {
         return {distillation(in[0], in[1], in[2].value, in[3].value, in[4].value, 2, 250)};
       });
  push("relative_error", "many blocks", {{{7, 9001}}, {{7, 9001}, -2, 2, false}},
       [](const Vars& in) -> Vars { return {relative_error(in[0], in[1].value)}; });
  push("embedding", "", {sums({50, 200}), integers(random_ids({4, 100}, 1, 50))},
       [](const Vars& in) -> Vars { return {embedding(in[1].value, in[0])}; });
  push("gelu", "", {{{7, 9001}}}, [](const Vars& in) -> Vars { return {gelu(in[0], Gelu::Erf)}; });
  push("dropout", "", {{{7, 9001}}}, [](const Vars& in) -> Vars {
    return {dropout(in[0], 0.5, {3, 4, 2})};
  });
  push("add_dropout", "", {sums({7, 9001}), {{7, 9001}}}, [](const Vars& in) -> Vars {
    return {add_dropout(in[0], in[1], 0.5, {3, 4, 2})};
  });
  push("add", "", {{{7, 9001}}, {{7, 9001}}},
       [](const Vars& in) -> Vars { return {add(in[0], in[1])}; });
  push("softmax", "", {{{900, 61}}}, [](const Vars& in) -> Vars { return {softmax(in[0])}; });
  push("refined_gate", "", {{{7, 9001}}, {{7, 9001}}},
       [](const Vars& in) -> Vars { return {refined_gate(in[0], in[1])}; });
  push("sigmoid", "", {{{7, 9001}}}, [](const Vars& in) -> Vars { return {sigmoid(in[0])}; });
  push("log_sigmoid", "", {{{7, 9001}}},
       [](const Vars& in) -> Vars { return {log_sigmoid(in[0])}; });
  push("rope", "", {{{3, 90, 5, 32}}, integers(random_ids({3, 90}, 3, 9000))},
       [](const Vars& in) -> Vars {
         return {rope(in[0], {in[1].value, 32})};
       });
  push("safe_exp", "", {{{3, 90, 5, 32}}}, [](const Vars& in) -> Vars {
    const SafeExp out = safe_exp(in[0], {}, {}, Maximum::Running, 1);
    return {out.features, out.log_rho, out.m};
  });
  push("safe_exp", "turned", {{{3, 90, 5, 32}}, integers(random_ids({3, 90}, 3, 9000))},
       [](const Vars& in) -> Vars {
         const SafeExp out = safe_exp(in[0], {}, {}, Maximum::Running, 1, {}, {in[1].value, 32});
         return {out.features, out.log_rho, out.m};
       });
  for (const char* decays : {"", "s", "a", "b", "ab"}) {
    list.push_back(linear_attention_sample({2, 200, 3, 33, 70}, decays, true, true, 64));
  }
  list.push_back(linear_attention_sample({1, 130, 1, 64, 64}, "bs", false, false, 0));
  list.push_back(delta_rule_sample({2, 200, 3, 33, 70}, 0.25, false, true, 64));
  list.push_back(delta_rule_sample({1, 130, 2, 64, 64}, 0.2, false, false, 0));
  for (int64_t heads : {1, 3}) {
    push("softmax_attention", std::to_string(heads) + " heads",
         {{{1, 300, heads, 32}}, {{1, 350, heads, 32}}, {{1, 350, heads, 40}}},
         [](const Vars& in) -> Vars {
           return {softmax_attention(in[0], in[1], in[2], {}, 100, 0.2)};
         });
  }
  add_large_mixer_samples(list);
  return list;
}

}  // namespace regla::test
