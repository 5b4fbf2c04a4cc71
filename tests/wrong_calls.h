#pragma once

#include "tests/all_ops.h"

// Calls that every op must refuse, each with an Error that begins with the op's name.
namespace regla::test {

inline void add_basic_wrong_calls(std::vector<WrongCall>& list) {
  const Refusals wrong{list};
  wrong("add", "shapes", [] { add(f32({2, 3}), f32({3, 2})); });
  wrong("add", "types", [] { add(f32({2}), f64({2})); });
  wrong("add", "integers", [] { add(i32({2}), i32({2})); });
  wrong("add", "nothing", [] { add(f32({2}), {}); });
  wrong("scale", "nothing", [] { scale({}, 1); });
  wrong("scale", "integers", [] { scale(i32({2}), 1); });
  wrong("reshape", "size", [] { reshape(f32({2, 3}), {7}); });
  wrong("reshape", "nothing", [] { reshape({}, {1}); });
  wrong("linear", "inner size", [] { linear(f32({2, 3}), f32({4, 5}), {}); });
  wrong("linear", "weight of three axes", [] { linear(f32({2, 3}), f32({1, 4, 3}), {}); });
  wrong("linear", "bias", [] { linear(f32({2, 3}), f32({4, 3}), f32({3})); });
  wrong("linear", "types", [] { linear(f32({2, 3}), f64({4, 3}), {}); });
  wrong("linear", "scalar", [] { linear(f32({}), f32({4, 3}), {}); });
  wrong("linear", "no weight", [] { linear(f32({2, 3}), {}, {}); });
  wrong("linear", "BF16 beside F64", [] { linear(f64({2, 3}), bf16({4, 3}), {}); });
  wrong("linear", "F32 beside BF16", [] { linear(bf16({2, 3}), f32({4, 3}), {}); });
  wrong("linear", "bias in BF16 of a result in F32", [] {
    linear(bf16({2, 3}), bf16({4, 3}), bf16({4}), DType::F32);
  });
  wrong("linear", "bias in BF16 beside F32", [] { linear(f32({2, 3}), bf16({4, 3}), bf16({4})); });
  wrong("linear", "F64 from F32", [] { linear(f32({2, 3}), f32({4, 3}), {}, DType::F64); });
  wrong("linear", "heads", [] { linear(f32({2, 3}), f32({4, 3}), {}, {}, 3); });
  wrong("linear", "BF16 of another size", [] { linear(f32({2, 3}), bf16({4, 2}), {}); });
  wrong("linear", "gradient of a weight in BF16", [] {
    Tape tape;
    linear(f32({2, 3}), tape.leaf(bf16({4, 3}).value), {});
  });
  wrong("linear", "gradient past a weight in BF16", [] {
    Tape tape;
    linear(tape.leaf(f32({2, 3}).value), bf16({4, 3}), {});
  });
  wrong("embedding", "gradient of a table in BF16", [] {
    Tape tape;
    embedding(i32({2}), tape.leaf(bf16({4, 3}).value));
  });
  wrong("embedding", "ids too large", [] {
    embedding(Tensor::full({2}, 4, DType::I32), f32({4, 3}));
  });
  wrong("embedding", "ids negative", [] {
    embedding(Tensor::full({2}, -1, DType::I32), f32({4, 3}));
  });
  wrong("embedding", "float ids", [] { embedding(f32({2}).value, f32({4, 3})); });
  wrong("embedding", "table", [] { embedding(i32({2}), f32({4})); });
  wrong("embedding", "no ids", [] { embedding({}, f32({4, 3})); });
  wrong("layer_norm", "gain", [] { layer_norm(f32({2, 3}), f32({2}), f32({3}), 1e-5); });
  wrong("layer_norm", "bias", [] { layer_norm(f32({2, 3}), f32({3}), {}, 1e-5); });
  wrong("layer_norm", "empty", [] { layer_norm(f32({2, 0}), f32({0}), f32({0}), 1e-5); });
  wrong("head_norm", "axes", [] { head_norm(f32({2, 3, 4}), f32({3, 4}), 1e-5, false); });
  wrong("head_norm", "gain", [] { head_norm(f32({1, 2, 3, 4}), f32({4}), 1e-5, true); });
  wrong("softmax", "empty", [] { softmax(f32({3, 0})); });
  wrong("softmax", "integers", [] { softmax(i32({3, 2})); });
  wrong("gelu", "integers", [] { gelu(i32({3}), Gelu::Erf); });
  wrong("gelu", "nothing", [] { gelu({}, Gelu::Tanh); });
  wrong("dropout", "rate 1", [] { dropout(f32({3}), 1, {}); });
  wrong("dropout", "rate below 0", [] { dropout(f32({3}), -0.1, {}); });
  wrong("dropout", "rate NaN", [] { dropout(f32({3}), NAN, {}); });
  wrong("add_dropout", "shapes", [] { add_dropout(f32({3}), f32({4}), 0.1, {}); });
  wrong("dropout_norm", "shapes", [] {
    dropout_norm(f32({3, 4}), f32({3, 5}), 0.1, {}, f32({5}), f32({5}), 1e-5);
  });
  wrong("dropout_norm", "gain", [] {
    dropout_norm(f32({3, 4}), f32({3, 4}), 0.1, {}, f32({5}), f32({4}), 1e-5);
  });
  wrong("dropout_norm", "rate 1", [] {
    dropout_norm(f32({3, 4}), f32({3, 4}), 1, {}, f32({4}), f32({4}), 1e-5);
  });
  wrong("add_dropout", "rate 1", [] { add_dropout(f32({3}), f32({3}), 1, {}); });
  wrong("rope", "odd", [] { rope(f32({1, 2, 1, 4}), {i32({1, 2}), 3}); });
  wrong("rope", "too many", [] { rope(f32({1, 2, 1, 4}), {i32({1, 2}), 6}); });
  wrong("rope", "positions", [] { rope(f32({1, 2, 1, 4}), {i32({2, 1}), 4}); });
  wrong("rope", "no positions", [] { rope(f32({1, 2, 1, 4}), {{}, 4}); });
  wrong("rope", "axes", [] { rope(f32({2, 1, 4}), {i32({2, 1}), 4}); });
  wrong("sigmoid", "integers", [] { sigmoid(i32({3})); });
  wrong("log_sigmoid", "integers", [] { log_sigmoid(i32({3})); });
  wrong("refined_gate", "shapes", [] { refined_gate(f32({3}), f32({4})); });
  wrong("refined_gate", "types", [] { refined_gate(f32({3}), f64({3})); });
  wrong("concatenate", "heads", [] { concatenate(f32({2, 3, 4}), f32({2, 3, 5})); });
  wrong("concatenate", "rank", [] { concatenate(f32({2}), f32({2})); });
  wrong("concatenate", "nothing", [] { concatenate(f32({2, 2}), {}); });
  wrong("last", "too many", [] { last(f32({2, 3}), 4); });
  wrong("last", "negative", [] { last(f32({2, 3}), -1); });
  wrong("last", "rank", [] { last(f32({2}), 1); });
}

inline void add_linear_attention_wrong_calls(std::vector<WrongCall>& list) {
  const Refusals wrong{list};
  const Var q = f32({2, 3, 2, 4}), u = f32({2, 3, 2, 5});
  for (const std::string op : {"linear_attention", "linear_attention_step"}) {
    const auto attend = [=](const std::string& flags, const Var& key, const Var& written,
                            const LogDecays& decays, const Tensor& reset, const Var& state) {
      wrong(op, flags, [=] {
        if (op == "linear_attention") {
          linear_attention(q, key, written, decays, reset, state, 2);
        } else {
          linear_attention_step(q, key, written, decays, reset, state.value);
        }
      });
    };
    const Var S = f32({2, 2, 4, 5});
    attend("k", f32({2, 3, 2, 5}), u, {}, {}, S);
    attend("u", q, f32({2, 4, 2, 5}), {}, {}, S);
    attend("u axes", q, f32({2, 4, 2}), {}, {}, S);
    attend("types", q, f64({2, 3, 2, 5}), {}, {}, S);
    attend("key decay", q, u, {.key = u, .value = {}, .scalar = {}}, {}, S);
    attend("value decay", q, u, {.key = {}, .value = q, .scalar = {}}, {}, S);
    attend("scalar decay", q, u, {.key = {}, .value = {}, .scalar = q}, {}, S);
    attend("reset", q, u, {}, i32({3, 2}), S);
    attend("state", q, u, {}, {}, f32({2, 2, 5, 4}));
  }
  wrong("linear_attention", "chunk", [=] { linear_attention(q, q, u, {}, {}, {}, -1); });
  wrong("linear_attention", "no tokens", [] {
    const Var none = f32({2, 0, 2, 4});
    linear_attention(none, none, none, {}, {}, {}, 1);
  });
  const Var one = f32({2, 1, 2, 4}), state = f32({2, 2, 4, 4});
  wrong("linear_attention_step", "two tokens",
        [=] { linear_attention_step(q, q, q, {}, {}, state.value); });
  wrong("linear_attention_step", "no state",
        [=] { linear_attention_step(one, one, one, {}, {}, {}); });
  wrong("linear_attention_step", "a tape", [=] {
    const Tape tape;
    linear_attention_step(one, one, one, {}, {}, state.value);
  });
}

inline void add_safe_exp_wrong_calls(std::vector<WrongCall>& list) {
  const Refusals wrong{list};
  const Var q = f32({2, 3, 2, 4});
  wrong("safe_exp", "axes", [] { safe_exp(f32({2, 3, 4}), {}, {}, Maximum::Running, 1); });
  wrong("safe_exp", "m0", [=] { safe_exp(q, f32({2, 4}), {}, Maximum::Running, 1); });
  wrong("safe_exp", "m0 per token", [=] { safe_exp(q, f32({2, 2}), {}, Maximum::Token, 1); });
  wrong("safe_exp", "reset", [=] { safe_exp(q, {}, i32({2, 2}), Maximum::Running, 1); });
  wrong("safe_exp", "positions", [=] {
    safe_exp(q, {}, {}, Maximum::Token, 1, {}, {i32({3, 2}), 4});
  });
  wrong("safe_exp", "odd", [=] { safe_exp(q, {}, {}, Maximum::Token, 1, {}, {i32({2, 3}), 3}); });
  wrong("safe_exp", "no tokens", [] { safe_exp(f32({2, 0, 2, 4}), {}, {}, Maximum::Running, 1); });
  wrong("safe_exp", "no features", [] {
    safe_exp(f32({2, 3, 2, 0}), {}, {}, Maximum::Running, 1);
  });
}

inline void add_softmax_attention_wrong_calls(std::vector<WrongCall>& list) {
  const Refusals wrong{list};
  const Var q = f32({2, 3, 2, 4}), u = f32({2, 3, 2, 5}), one = f32({2, 1, 2, 4});
  const auto softmax = [&](const std::string& flags, const Var& k, const Var& v,
                           const Tensor& first, int64_t window) {
    wrong("softmax_attention", flags, [=] { softmax_attention(q, k, v, first, window, 1); });
  };
  softmax("fewer keys", f32({2, 2, 2, 4}), f32({2, 2, 2, 5}), {}, 0);
  softmax("k", f32({2, 3, 2, 5}), u, {}, 0);
  softmax("v", q, f32({2, 4, 2, 5}), {}, 0);
  softmax("first", q, u, i32({3, 2}), 0);
  softmax("first after the query", q, u, Tensor::full({2, 3}, 1, DType::I32), 0);
  softmax("window", q, u, {}, -1);
  softmax("types", q, f64({2, 3, 2, 5}), {}, 0);
  const auto step = [&](const std::string& flags, const Var& token, const Var& keys,
                        const Var& values, const Tensor& used, const Tensor& positions) {
    wrong("softmax_attention_step", flags, [=] {
      softmax_attention_step(token, token, token, {keys.value, values.value, used}, {positions}, 0,
                             1);
    });
  };
  const Var cache = f32({2, 9, 2, 4});
  step("two tokens", f32({2, 2, 2, 4}), cache, cache, i32({1}), i32({2, 1}));
  step("no cache", one, {}, {}, i32({1}), i32({2, 1}));
  step("keys", one, f32({2, 9, 2, 5}), cache, i32({1}), i32({2, 1}));
  step("values", one, cache, f32({2, 8, 2, 4}), i32({1}), i32({2, 1}));
  step("values of another size", one, cache, f32({2, 9, 2, 5}), i32({1}), i32({2, 1}));
  step("types", one, cache, f64({2, 9, 2, 4}), i32({1}), i32({2, 1}));
  step("used", one, cache, cache, i32({2}), i32({2, 1}));
  step("positions", one, cache, cache, i32({1}), i32({1, 2}));
  wrong("softmax_attention_step", "a tape", [=] {
    const Tape tape;
    softmax_attention_step(one, one, one, {cache.value, cache.value, i32({1})}, {i32({2, 1})}, 0,
                           1);
  });
}

inline void add_step_wrong_calls(std::vector<WrongCall>& list) {
  const Refusals wrong{list};
  const Var x = f32({2, 3}), gain = f32({3});
  const StepWeight weight = {f32({4, 3}), f32({4}), DType::F32};
  const auto step = [&](const std::string& flags, const Var& of, const StepNorm& norm,
                        const std::vector<StepWeight>& weights, DType type, const Var& residual) {
    wrong("linear_step", flags, [=] { linear_step(of, norm, weights, type, {}, residual); });
  };
  step("axes", f32({2, 1, 3}), {}, {weight}, DType::F32, {});
  step("no weight", x, {}, {}, DType::F32, {});
  step("inner size", x, {}, {{f32({4, 5}), {}, DType::F32}}, DType::F32, {});
  step("bias", x, {}, {{f32({4, 3}), f32({3}), DType::F32}}, DType::F32, {});
  step("gain", x, {f32({2}), {}, 1e-5}, {weight}, DType::F32, {});
  step("norm's bias", x, {gain, f32({2}), 1e-5}, {weight}, DType::F32, {});
  step("BF16 without a norm", x, {}, {{bf16({4, 3}), {}, DType::BF16}}, DType::BF16, {});
  step("F64 from F32", x, {gain, {}, 1e-5}, {{f64({4, 3}), {}, DType::F64}}, DType::F64, {});
  step("F64 out of F32", x, {}, {{f32({4, 3}), {}, DType::F64}}, DType::F32, {});
  step("residual", x, {}, {weight}, DType::F32, f32({2, 3}));
  step("residual of two", x, {}, {weight, weight}, DType::F32, f32({2, 4}));
  wrong("linear_step", "a tape", [=] {
    const Tape tape;
    linear_step(x, {}, {weight}, DType::F32);
  });
  const Var z = f32({2, 1, 3, 4}), v = f32({2, 1, 3, 5});
  const ReglaToken token = {z, z, v, v, v, {}, {}, 1};
  const Tensor m = f32({2, 3}).value, state = f32({2, 3, 4, 5}).value;
  const auto regla = [&](const std::string& flags, const std::function<void(ReglaToken&)>& edit) {
    wrong("regla_step", flags, [=] {
      ReglaToken edited = token;
      edit(edited);
      regla_step(edited, {}, m, state);
    });
  };
  regla("two tokens", [](ReglaToken& t) { t.v = f32({2, 2, 3, 5}); });
  regla("queries", [](ReglaToken& t) { t.z_q = f32({2, 1, 2, 4}); });
  regla("keys", [](ReglaToken& t) { t.z_k = f32({2, 1, 3, 5}); });
  regla("gate", [](ReglaToken& t) { t.z_g = f32({2, 1, 3, 4}); });
  regla("refining gate", [](ReglaToken& t) { t.z_r = {}; });
  regla("output gate", [](ReglaToken& t) { t.z_o = f64({2, 1, 3, 5}); });
  regla("rotation", [](ReglaToken& t) { t.rotation = {i32({2, 1}), 3}; });
  wrong("regla_step", "maximum", [=] { regla_step(token, {}, f32({2, 4}).value, state); });
  wrong("regla_step", "state", [=] { regla_step(token, {}, m, f32({2, 3, 5, 4}).value); });
  wrong("regla_step", "gain", [=] { regla_step(token, {f32({5}), 1, true}, m, state); });
  wrong("regla_step", "a tape", [=] {
    const Tape tape;
    regla_step(token, {}, m, state);
  });
}

inline void add_loss_wrong_calls(std::vector<WrongCall>& list) {
  const Refusals wrong{list};
  wrong("cross_entropy", "gradient past a weight in BF16", [] {
    Tape tape;
    cross_entropy(tape.leaf(f32({2, 3}).value), bf16({4, 3}), i32({2}));
  });
  for (const int32_t target : {4, -2}) {  // the kernel of both looks at the values
    const Var hidden = f32({2, 3}), weight = f32({4, 3});
    const Tensor targets = Tensor::full({2}, target, DType::I32);
    const std::string flags = "target " + std::to_string(target);
    wrong("cross_entropy", flags, [=] { cross_entropy(hidden, weight, targets); });
    wrong("cross_entropy", flags + ", rows",
          [=] { cross_entropy_rows(hidden.value, weight.value, targets); });
  }
  for (const std::string op : {"cross_entropy", "cross_entropy_rows"}) {
    const auto loss = [&](const std::string& flags, const Var& hidden, const Var& weight,
                          const Tensor& targets) {
      wrong(op, flags, [=] {
        if (op == "cross_entropy") {
          cross_entropy(hidden, weight, targets);
        } else {
          cross_entropy_rows(hidden.value, weight.value, targets);
        }
      });
    };
    loss("inner size", f32({2, 3}), f32({4, 5}), i32({2}));
    loss("weight", f32({2, 3}), f32({3}), i32({2}));
    loss("targets", f32({2, 3}), f32({4, 3}), i32({3}));
    loss("types", f32({2, 3}), f64({4, 3}), i32({2}));
    loss("no rows", f32({0, 3}), f32({4, 3}), i32({0}));
    loss("BF16 beside F64", f64({2, 3}), bf16({4, 3}), i32({2}));
  }
}

inline void add_distillation_wrong_calls(std::vector<WrongCall>& list) {
  const Refusals wrong{list};
  const auto distil = [&](const std::string& flags, const Var& hidden, const Var& weight,
                          const Var& teacher, const Var& teacher_weight, const Tensor& targets,
                          double temperature, int64_t count) {
    wrong("distillation", flags, [=] {
      distillation(hidden, weight, teacher.value, teacher_weight.value, targets, temperature,
                   count);
    });
  };
  const Var hidden = f32({2, 3}), weight = f32({4, 3});
  const Tensor targets = i32({2});
  distil("inner size", hidden, f32({4, 5}), hidden, weight, targets, 1, 2);
  distil("the teacher's inner size", hidden, weight, hidden, f32({4, 5}), targets, 1, 2);
  distil("the teacher's rows", hidden, weight, f32({3, 3}), weight, targets, 1, 2);
  distil("the teacher's vocabulary", hidden, weight, hidden, f32({5, 3}), targets, 1, 2);
  distil("the teacher's type", hidden, weight, f64({2, 3}), f64({4, 3}), targets, 1, 2);
  distil("a stored weight", hidden, bf16({4, 3}), hidden, weight, targets, 1, 2);
  distil("the teacher's stored weight", hidden, weight, hidden, bf16({4, 3}), targets, 1, 2);
  distil("no rows", f32({0, 3}), weight, f32({0, 3}), weight, i32({0}), 1, 2);
  distil("targets", hidden, weight, hidden, weight, i32({3}), 1, 2);
  distil("temperature", hidden, weight, hidden, weight, targets, 0, 2);
  distil("count", hidden, weight, hidden, weight, targets, 1, 0);
  wrong("relative_error", "shape", [=] { relative_error(hidden, f32({3, 2}).value); });
  wrong("relative_error", "type", [=] { relative_error(hidden, f64({2, 3}).value); });
  wrong("relative_error", "empty", [] { relative_error(f32({0, 3}), f32({0, 3}).value); });
}

inline void add_delta_rule_wrong_calls(std::vector<WrongCall>& list) {
  const Refusals wrong{list};
  const Var q = f32({2, 3, 2, 4}), v = f32({2, 3, 2, 5}), g = f32({2, 3, 2});
  for (const std::string op : {"delta_rule", "delta_rule_step"}) {
    const auto attend = [=](const std::string& flags, const Var& key, const Var& value,
                            const Var& strength, const Tensor& reset, const Var& state) {
      wrong(op, flags, [=] {
        if (op == "delta_rule") {
          delta_rule(q, key, value, strength, reset, state, 2);
        } else {
          delta_rule_step(q, key, value, strength, reset, state.value);
        }
      });
    };
    const Var S = f32({2, 2, 4, 5});
    attend("k", v, v, g, {}, S);
    attend("v", q, f32({2, 4, 2, 5}), g, {}, S);
    attend("v axes", q, f32({2, 4, 2}), g, {}, S);
    attend("types", q, f64({2, 3, 2, 5}), g, {}, S);
    attend("per component", q, v, v, {}, S);
    attend("no strength", q, v, {}, {}, S);
    attend("reset", q, v, g, i32({3, 2}), S);
    attend("state", q, v, g, {}, f32({2, 2, 5, 4}));
  }
  wrong("delta_rule", "chunk", [=] { delta_rule(q, q, v, g, {}, {}, -1); });
  wrong("delta_rule", "no tokens", [] {
    const Var none = f32({2, 0, 2, 4});
    delta_rule(none, none, none, f32({2, 0, 2}), {}, {}, 1);
  });
  const Var one = f32({2, 1, 2, 4}), weight = f32({2, 1, 2}), state = f32({2, 2, 4, 4});
  wrong("delta_rule_step", "two tokens", [=] { delta_rule_step(q, q, q, g, {}, state.value); });
  wrong("delta_rule_step", "no state", [=] { delta_rule_step(one, one, one, weight, {}, {}); });
  wrong("delta_rule_step", "a tape", [=] {
    const Tape tape;
    delta_rule_step(one, one, one, weight, {}, state.value);
  });
}

inline std::vector<WrongCall> wrong_calls() {
  std::vector<WrongCall> list;
  add_basic_wrong_calls(list);
  add_linear_attention_wrong_calls(list);
  add_safe_exp_wrong_calls(list);
  add_softmax_attention_wrong_calls(list);
  add_step_wrong_calls(list);
  add_loss_wrong_calls(list);
  add_distillation_wrong_calls(list);
  add_delta_rule_wrong_calls(list);
  add_mixer_wrong_calls(list);
  return list;
}

}  // namespace regla::test
