#include "core/recurrences/delta_rule.h"

#include <string>

#include "autograd/ops.h"
#include "backends/cpu/cells.h"
#include "tests/backends/delta_rule_oracle.h"
#include "tests/catch.h"
#include "tests/sequence.h"
#include "tests/support.h"

namespace regla::test {
namespace {

/// A delta rule with everything that goes in.
struct Problem {
  Tensor q, k, v, g, reset, state, d_o, d_state;

  Problem to(DType dtype) const {
    return {converted(q, dtype),
            converted(k, dtype),
            converted(v, dtype),
            converted(g, dtype),
            reset,
            converted(state, dtype),
            converted(d_o, dtype),
            converted(d_state, dtype)};
  }
};

struct Sizes {
  int64_t B, T, H, K, V;
};

/// Keys have length 1. I - g k k^T has the eigenvalue 1 - g |k|^2, and with |k|^2 above 2 / g, as
/// normal keys have, it is below -1: 200 such tokens multiply the state, and every rounding error
/// in it, by many powers of ten, and no two orders of summation agree.
Tensor unit_keys(const Shape& shape, uint64_t seed) {
  Tensor k = normal_tensor(shape, DType::F64, seed);
  const int64_t K = shape[3];
  for (int64_t r = 0; r < k.numel(); r += K) {
    double square = 0;
    for (int64_t i = 0; i < K; ++i) square += k.data<double>()[r + i] * k.data<double>()[r + i];
    for (int64_t i = 0; i < K; ++i) k.data<double>()[r + i] /= std::sqrt(square);
  }
  return converted(converted(k, DType::F32), DType::F64);
}

Problem make_problem(const Sizes& n, bool state, bool reset) {
  const DType dtype = DType::F64;
  Problem p;
  p.q = normal_tensor({n.B, n.T, n.H, n.K}, dtype, 1);
  p.k = unit_keys({n.B, n.T, n.H, n.K}, 2);
  p.v = normal_tensor({n.B, n.T, n.H, n.V}, dtype, 3);
  p.g = spaced_tensor({n.B, n.T, n.H}, dtype, 4, 0, 1);
  if (state) p.state = normal_tensor({n.B, n.H, n.K, n.V}, dtype, 5);
  if (reset) {
    p.reset = random_mask({n.B, n.T}, 6, 0.1);
    p.reset.data<int32_t>()[0] = 1;  // one sequence begins with a reset
  }
  p.d_o = normal_tensor(p.v.shape(), dtype, 7);
  p.d_state = normal_tensor({n.B, n.H, n.K, n.V}, dtype, 8);
  return p;
}

DeltaRuleInputs oracle_inputs(const Problem& p) {
  const auto numbers = [](const Tensor& x) { return x ? x.values() : Numbers{}; };
  return {p.q.dim(0),       p.q.dim(1),     p.q.dim(2),        p.q.dim(3),   p.v.dim(3),
          numbers(p.q),     numbers(p.k),   numbers(p.v),      numbers(p.g), numbers(p.reset),
          numbers(p.state), numbers(p.d_o), numbers(p.d_state)};
}

using Results = std::vector<std::pair<std::string, Numbers>>;

Results results_of(const DeltaRuleOracle& r) {
  return {{"o", r.o},     {"state", r.state}, {"d_q", r.d_q},          {"d_k", r.d_k},
          {"d_v", r.d_v}, {"d_g", r.d_g},     {"d_state0", r.d_state0}};
}

/// Everything the op gives, the sequence being cut at `splits` and the state carried over.
Results run(const Problem& p, int64_t chunk, std::vector<int64_t> splits = {}) {
  Tape tape;
  const Var start = p.state ? tape.leaf(p.state) : Var{};
  splits.push_back(p.q.dim(1));
  Vars q, k, v, g, outputs;
  Tensors o, seeds;
  Var state = start;
  for (size_t i = 0; i < splits.size(); ++i) {
    const auto part = [&](const Tensor& x) {
      return tokens(x, i == 0 ? 0 : splits[i - 1], splits[i]);
    };
    q.push_back(tape.leaf(part(p.q)));
    k.push_back(tape.leaf(part(p.k)));
    v.push_back(tape.leaf(part(p.v)));
    g.push_back(tape.leaf(part(p.g)));
    const Recurrence out = delta_rule(q[i], k[i], v[i], g[i], part(p.reset), state, chunk);
    outputs.push_back(out.o);
    o.push_back(out.o.value);
    seeds.push_back(part(p.d_o));
    state = out.state;
  }
  outputs.push_back(state);
  seeds.push_back(p.d_state);
  tape.backward(outputs, seeds);
  const auto gradient = [&](const Vars& parts) {
    Tensors whole;
    for (const Var& x : parts) whole.push_back(tape.gradient(x));
    return joined(whole).values();
  };
  return {{"o", joined(o).values()},
          {"state", state.value.values()},
          {"d_q", gradient(q)},
          {"d_k", gradient(k)},
          {"d_v", gradient(v)},
          {"d_g", gradient(g)},
          {"d_state0", start.defined() ? tape.gradient(start).values() : Numbers{}}};
}

/// max|a - b| / max|b|; where b is exactly 0, as every d_k of a strength of 0, so must a be.
void check_results(const Results& got, const Results& wanted, DType dtype) {
  for (size_t i = 0; i < got.size(); ++i) {
    if (got[i].second.empty()) continue;  // the gradient of an absent state
    INFO(got[i].first << ", " << name_of(dtype));
    CHECK(relative_error(got[i].second, wanted[i].second) < (dtype == DType::F64 ? 1e-10 : 1e-4));
  }
}

/// The values by decoding one token at a time.
void check_step(const Problem& original, const Results& wanted, DType dtype) {
  const Problem p = original.to(dtype);
  const int64_t B = p.q.dim(0), H = p.q.dim(2);
  Tensor state = p.state ? p.state.clone() : Tensor::zeros({B, H, p.q.dim(3), p.v.dim(3)}, dtype);
  Tensors o;
  for (int64_t t = 0; t < p.q.dim(1); ++t) {
    const auto at = [&](const Tensor& x) { return tokens(x, t, t + 1); };
    o.push_back(delta_rule_step(at(p.q), at(p.k), at(p.v), at(p.g), at(p.reset), state));
  }
  INFO("step");
  check_results({{"o", joined(o).values()}, {"state", state.values()}}, wanted, dtype);
}

/// The cell, token by token.
void check_cell(const Problem& original, const Results& wanted, DType dtype) {
  const Problem p = original.to(dtype);
  const CellArgs args = cell_args({.q = p.q,
                                   .k = p.k,
                                   .v = p.v,
                                   .g = p.g,
                                   .reset = p.reset,
                                   .state = p.state,
                                   .chunk = 1,
                                   .keep = true});
  RecurrenceResult result = {Tensor::empty_like(p.v), Tensor::empty_like(p.d_state), {}};
  cpu::run_cell<recurrence::DeltaRule>(args, result);
  const auto like = [](const Tensor& x) { return x ? Tensor::empty_like(x) : Tensor{}; };
  const Tensor d_q = like(p.q), d_k = like(p.k), d_v = like(p.v), d_g = like(p.g);
  const Tensor d_state0 = like(p.state);
  cpu::reverse_cell<recurrence::DeltaRule>(args, result,
                                           cell_gradients({.d_o = p.d_o,
                                                           .d_state = p.d_state,
                                                           .d_q = {d_q},
                                                           .d_k = {d_k},
                                                           .d_v = {d_v},
                                                           .d_g = {d_g},
                                                           .d_state0 = {d_state0}}));
  INFO("cell");
  check_results({{"o", result.o.values()},
                 {"state", result.state.values()},
                 {"d_q", d_q.values()},
                 {"d_k", d_k.values()},
                 {"d_v", d_v.values()},
                 {"d_g", d_g.values()},
                 {"d_state0", d_state0 ? d_state0.values() : Numbers{}}},
                wanted, dtype);
}

void check_problem(const Problem& p, const std::vector<int64_t>& chunks) {
  const DeltaRuleInputs inputs = oracle_inputs(p);
  const Results wanted = results_of(DeltaRuleOracle(inputs));
  for (DType dtype : {DType::F64, DType::F32}) {
    check_cell(p, wanted, dtype);
    check_step(p, wanted, dtype);
    for (int64_t chunk : chunks) {
      INFO("chunk " << chunk);
      check_results(run(p.to(dtype), chunk), wanted, dtype);
    }
  }
}

}  // namespace

TEST_CASE("delta rule: cell, step and every chunk size are the unrolled sum") {
  for (int64_t T : {1, 15, 64, 65, 200}) {
    for (const auto& [K, V] : {std::pair<int64_t, int64_t>{3, 5}, {6, 2}}) {
      for (bool state : {false, true}) {
        for (bool reset : {false, true}) {
          INFO("T " << T << ", K " << K << ", state " << state << ", reset " << reset);
          check_problem(make_problem({2, T, 2, K, V}, state, reset),
                        {0, 1, 2, 7, 16, 64, T, T + 5});
        }
      }
    }
  }
}

TEST_CASE("delta rule: sizes on both sides of the vector registers") {
  for (const auto& [K, V] : {std::pair<int64_t, int64_t>{17, 70}, {70, 17}, {64, 64}, {1, 1}}) {
    INFO("K " << K << ", V " << V);
    check_problem(make_problem({1, 37, 2, K, V}, true, true), {1, 7, 16, 0});
    check_problem(make_problem({1, 130, 1, K, V}, true, false), {16, 0});
  }
}

TEST_CASE("delta rule: strengths of exactly 0 and 1 are ordinary numbers") {
  Problem p = make_problem({2, 65, 2, 3, 5}, true, true);
  const Random random(9, 81);
  for (int64_t i = 0; i < p.g.numel(); ++i) {
    const double pick = random.uniform(static_cast<uint64_t>(i));
    if (pick < 0.6) p.g.data<double>()[i] = pick < 0.3 ? 0 : 1;
  }
  check_problem(p, {0, 1, 2, 7, 16, 65});
  for (double strength : {0.0, 1.0}) {
    INFO("all " << strength);
    p.g.fill(strength);
    check_problem(p, {0, 1, 7, 16});
  }
}

TEST_CASE("delta rule: resets at every token, and nothing passes one") {
  Problem p = make_problem({2, 20, 2, 3, 5}, true, true);
  p.reset.fill(1);
  check_problem(p, {0, 1, 7, 16});
  const Results results = run(p, 7);
  CHECK(results.back().first == "d_state0");
  for (double value : results.back().second) CHECK(value == 0);
}

TEST_CASE("delta rule: a sequence in parts is the sequence") {
  const Problem p = make_problem({2, 70, 2, 3, 5}, true, true);
  const DeltaRuleInputs inputs = oracle_inputs(p);
  const Results wanted = results_of(DeltaRuleOracle(inputs));
  for (const std::vector<int64_t>& splits :
       {std::vector<int64_t>{1}, {5}, {16}, {69}, {3, 4, 30, 65}}) {
    INFO("first split at " << splits[0]);
    for (DType dtype : {DType::F64, DType::F32}) {
      check_results(run(p.to(dtype), 16, splits), wanted, dtype);
    }
  }
}

TEST_CASE("delta rule: the future changes no bit of the past") {
  for (DType dtype : {DType::F64, DType::F32}) {
    const Problem p = make_problem({1, 70, 1, 5, 7}, true, false).to(dtype);
    const auto outputs = [&](const Problem& x, int64_t chunk) {
      return delta_rule(x.q, x.k, x.v, x.g, {}, x.state, chunk).o.value;
    };
    for (int64_t chunk : {0, 1, 7, 16, 70}) {
      for (int64_t t : {1, 15, 16, 33, 64, 69}) {
        INFO(name_of(dtype) << ", chunk " << chunk << ", token " << t);
        Problem changed = p;
        for (Tensor* x : {&changed.q, &changed.k, &changed.v, &changed.g}) {
          *x = x->clone();
          x->reshape({70, x->numel() / 70}).slice(t, 70).fill(0.7);
        }
        const Tensor before = outputs(p, chunk), after = outputs(changed, chunk);
        CHECK(same_bits(tokens(after, 0, t), tokens(before, 0, t)));
        CHECK(!same_bits(after, before));
      }
    }
  }
}

}  // namespace regla::test
