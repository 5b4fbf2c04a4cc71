#include "core/recurrences/linear_attention.h"

#include <limits>
#include <string>

#include "autograd/ops.h"
#include "backends/cpu/cells.h"
#include "tests/catch.h"
#include "tests/oracle.h"
#include "tests/sequence.h"
#include "tests/support.h"

namespace regla::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

enum class Logs { Usual, Extreme };

/// A linear attention with everything that goes in.
struct Problem {
  Tensor q, k, u, log_a, log_b, log_s, reset, state, d_o, d_state;

  Problem to(DType dtype) const {
    return {converted(q, dtype),
            converted(k, dtype),
            converted(u, dtype),
            converted(log_a, dtype),
            converted(log_b, dtype),
            converted(log_s, dtype),
            reset,
            converted(state, dtype),
            converted(d_o, dtype),
            converted(d_state, dtype)};
  }
};

struct Sizes {
  int64_t B, T, H, K, V;
};

/// Log-decays: mostly near 0 as trained gates are, or now and then an extreme.
Tensor log_decays(const Shape& shape, uint64_t seed, Logs logs) {
  Tensor x = spaced_tensor(shape, DType::F64, seed, -0.6, 0);
  if (logs == Logs::Usual) return x;
  const double extremes[] = {-kInfinity, 0, -50, -1e4, -1e-6};
  const Random random(seed, 81);
  for (int64_t i = 0; i < x.numel(); ++i) {
    const auto pick = static_cast<size_t>(random.uniform(static_cast<uint64_t>(i)) * 20);
    if (pick < 5) x.data<double>()[i] = extremes[pick];
  }
  return x;
}

Problem make_problem(const Sizes& n, const std::string& decays, bool state, bool reset,
                     Logs logs = Logs::Usual) {
  const DType dtype = DType::F64;
  const auto has = [&](char axis) { return decays.find(axis) != std::string::npos; };
  Problem p;
  p.q = normal_tensor({n.B, n.T, n.H, n.K}, dtype, 1);
  p.k = normal_tensor({n.B, n.T, n.H, n.K}, dtype, 2);
  p.u = normal_tensor({n.B, n.T, n.H, n.V}, dtype, 3);
  if (has('a')) p.log_a = log_decays(p.k.shape(), 4, logs);
  if (has('b')) p.log_b = log_decays(p.u.shape(), 5, logs);
  if (has('s')) p.log_s = log_decays({n.B, n.T, n.H}, 6, logs);
  if (state) p.state = normal_tensor({n.B, n.H, n.K, n.V}, dtype, 7);
  if (reset) {
    p.reset = random_mask({n.B, n.T}, 8, 0.1);
    p.reset.data<int32_t>()[0] = 1;  // one sequence begins with a reset
  }
  p.d_o = normal_tensor(p.u.shape(), dtype, 9);
  p.d_state = normal_tensor({n.B, n.H, n.K, n.V}, dtype, 10);
  return p;
}

OracleInputs oracle_inputs(const Problem& p) {
  const auto numbers = [](const Tensor& x) { return x ? x.values() : Numbers{}; };
  return {p.q.dim(0),       p.q.dim(1),       p.q.dim(2),        p.q.dim(3),
          p.u.dim(3),       numbers(p.q),     numbers(p.k),      numbers(p.u),
          numbers(p.log_a), numbers(p.log_b), numbers(p.log_s),  numbers(p.reset),
          numbers(p.state), numbers(p.d_o),   numbers(p.d_state)};
}

/// Everything the op gives, by name.
std::vector<std::pair<std::string, Tensor>> run(const Problem& p, int64_t chunk) {
  Tape tape;
  const auto leaf = [&](const Tensor& x) { return x ? tape.leaf(x) : Var{}; };
  const Var q = leaf(p.q), k = leaf(p.k), u = leaf(p.u), state = leaf(p.state);
  const LogDecays decays = {leaf(p.log_a), leaf(p.log_b), leaf(p.log_s)};
  const Recurrence out = linear_attention(q, k, u, decays, p.reset, state, chunk);
  tape.backward({out.o, out.state}, {p.d_o, p.d_state});
  const auto gradient = [&](const Var& x) { return x.defined() ? tape.gradient(x) : Tensor{}; };
  return {{"o", out.o.value},
          {"state", out.state.value},
          {"d_q", gradient(q)},
          {"d_k", gradient(k)},
          {"d_u", gradient(u)},
          {"d_log_a", gradient(decays.key)},
          {"d_log_b", gradient(decays.value)},
          {"d_log_s", gradient(decays.scalar)},
          {"d_state0", gradient(state)}};
}

std::vector<const Numbers*> parts(const OracleResult& r) {
  return {&r.o, &r.state, &r.d_q, &r.d_k, &r.d_u, &r.d_log_a, &r.d_log_b, &r.d_log_s, &r.d_state0};
}

/// The usual measure; where everything has vanished (decays of e^-50 and less), the absolute size
/// of what is there instead, all inputs being of order 1. Gradients of decays are differences of
/// such terms and keep their rounding.
double error(const Numbers& got, const Numbers& wanted) {
  const auto largest = [](const Numbers& x) {
    double size = 0;
    for (double value : x)
      size = std::isfinite(value) ? std::max(size, std::abs(value)) : kInfinity;
    return size;
  };
  return largest(wanted) < 1e-15 ? largest(got) : relative_error(got, wanted);
}

void check_chunked(const Problem& p, const OracleResult& expected, DType dtype, int64_t chunk) {
  const auto got = run(p.to(dtype), chunk);
  const auto wanted = parts(expected);
  const double bound = dtype == DType::F64 ? 1e-10 : 1e-4;
  for (size_t i = 0; i < got.size(); ++i) {
    if (!got[i].second) continue;
    INFO(got[i].first << ", " << name_of(dtype) << ", chunk " << chunk);
    CHECK(all_finite(got[i].second));
    CHECK(error(got[i].second.values(), *wanted[i]) < bound);
  }
}

/// The values by decoding one token at a time.
void check_step(const Problem& original, const OracleResult& expected, DType dtype) {
  const Problem p = original.to(dtype);
  const int64_t B = p.q.dim(0), steps = p.q.dim(1), H = p.q.dim(2);
  Tensor state = p.state ? p.state.clone() : Tensor::zeros({B, H, p.q.dim(3), p.u.dim(3)}, dtype);
  Tensors o;
  for (int64_t t = 0; t < steps; ++t) {
    const auto at = [&](const Tensor& x) { return tokens(x, t, t + 1); };
    const LogDecays decays = {at(p.log_a), at(p.log_b), at(p.log_s)};
    o.push_back(linear_attention_step(at(p.q), at(p.k), at(p.u), decays, at(p.reset), state));
  }
  const double bound = dtype == DType::F64 ? 1e-10 : 1e-4;
  INFO("step, " << name_of(dtype));
  CHECK(relative_error(joined(o).values(), expected.o) < bound);
  CHECK(relative_error(state.values(), expected.state) < bound);
}

/// The cell, token by token.
void check_cell(const Problem& original, const OracleResult& expected, DType dtype) {
  const Problem p = original.to(dtype);
  const CellArgs args = cell_args({.q = p.q,
                                   .k = p.k,
                                   .u = p.u,
                                   .log_a = p.log_a,
                                   .log_b = p.log_b,
                                   .log_s = p.log_s,
                                   .reset = p.reset,
                                   .state = p.state,
                                   .chunk = 1,
                                   .keep = true});
  RecurrenceResult result = {Tensor::empty_like(p.u), Tensor::empty_like(p.d_state), {}};
  cpu::run_cell<recurrence::LinearAttention>(args, result);
  const auto like = [](const Tensor& x) { return x ? Tensor::empty_like(x) : Tensor{}; };
  const Tensors got = {result.o,      result.state,  like(p.q),     like(p.k),    like(p.u),
                       like(p.log_a), like(p.log_b), like(p.log_s), like(p.state)};
  cpu::reverse_cell<recurrence::LinearAttention>(args, result,
                                                 cell_gradients({.d_o = p.d_o,
                                                                 .d_state = p.d_state,
                                                                 .d_q = {got[2]},
                                                                 .d_k = {got[3]},
                                                                 .d_u = {got[4]},
                                                                 .d_log_a = {got[5]},
                                                                 .d_log_b = {got[6]},
                                                                 .d_log_s = {got[7]},
                                                                 .d_state0 = {got[8]}}));
  const std::vector<const Numbers*> wanted = parts(expected);
  for (size_t i = 0; i < got.size(); ++i) {
    if (!got[i]) continue;
    INFO("cell, " << name_of(dtype) << ", result " << i);
    CHECK(error(got[i].values(), *wanted[i]) < (dtype == DType::F64 ? 1e-10 : 1e-4));
  }
}

void check_problem(const Problem& p, const std::vector<int64_t>& chunks) {
  const OracleInputs inputs = oracle_inputs(p);
  const Oracle oracle(inputs);
  for (DType dtype : {DType::F64, DType::F32}) {
    check_cell(p, oracle.result(), dtype);
    check_step(p, oracle.result(), dtype);
    for (int64_t chunk : chunks) check_chunked(p, oracle.result(), dtype, chunk);
  }
}

const char* const kDecays[] = {"", "s", "a", "b", "ab", "as", "bs", "abs"};

}  // namespace

TEST_CASE("cell, step and every chunk size are the sum over the past") {
  for (int64_t T : {1, 15, 64, 65, 200}) {
    for (const char* decays : kDecays) {
      for (bool state : {false, true}) {
        for (bool reset : {false, true}) {
          INFO("T " << T << ", decays '" << decays << "', state " << state << ", reset " << reset);
          check_problem(make_problem({2, T, 2, 3, 5}, decays, state, reset),
                        {0, 1, 2, 7, 16, 64, T, T + 5});
        }
      }
    }
  }
}

TEST_CASE("sizes on both sides of the vector registers") {
  for (const auto& [K, V] : {std::pair<int64_t, int64_t>{17, 70}, {70, 17}, {64, 64}, {1, 1}}) {
    for (const char* decays : {"", "a", "b", "ab"}) {
      INFO("K " << K << ", V " << V << ", decays '" << decays << "'");
      check_problem(make_problem({1, 37, 2, K, V}, decays, true, true), {1, 7, 16, 0});
    }
  }
}

TEST_CASE("gates of exactly 0 and 1 and log-decays down to -1e4 stay finite and exact") {
  for (const char* decays : kDecays) {
    for (bool reset : {false, true}) {
      INFO("decays '" << decays << "', reset " << reset);
      check_problem(make_problem({2, 65, 2, 3, 5}, decays, true, reset, Logs::Extreme),
                    {0, 1, 2, 7, 16, 65});
    }
  }
}

TEST_CASE("a whole sequence of gates at one extreme") {
  for (double log : {0.0, -50.0, -1e4, -kInfinity}) {
    for (const char* decays : {"s", "a", "b", "abs"}) {
      Problem p = make_problem({1, 40, 2, 3, 5}, decays, true, false);
      for (Tensor* x : {&p.log_a, &p.log_b, &p.log_s}) {
        if (*x) x->fill(log);
      }
      INFO("log-decay " << log << ", decays '" << decays << "'");
      check_problem(p, {0, 1, 7, 16});
    }
  }
}

TEST_CASE("resets at every token") {
  Problem p = make_problem({2, 20, 2, 3, 5}, "bs", true, true);
  p.reset.fill(1);
  check_problem(p, {0, 1, 7, 16});
  for (const auto& [name, value] : run(p, 7)) {  // nothing passes a reset, not even rounding
    if (name.rfind("d_log", 0) == 0 && value) CHECK(dot(value, value) == 0);
  }
}

}  // namespace regla::test
