#pragma once

#include <vector>

#include "tests/oracle.h"

// The delta rule (Eq. 8) without a state, in double, with gradients: unrolled,
//
//     o_t = sum_{s<=t} (q_t^T M_t M_{t-1} ... M_{s+1} k_s) g_s v_s + S_0^T M_1 ... M_t q_t
//     M_r = I - g_r k_r k_r^T, and 0 for a token r that resets
//
// so with p_t = q_t and p_{s-1} = M_s p_s one query is a walk back over the tokens, and its
// gradient the same walk forwards again. Row i of the final state is what the query e_i reads after
// the last token. O(T^2 (K + V)) per head.
namespace regla::test {

struct DeltaRuleInputs {
  int64_t B, T, H, K, V;
  Numbers q, k;          // [B, T, H, K]
  Numbers v;             // [B, T, H, V]
  Numbers g;             // [B, T, H]
  Numbers reset;         // [B, T] or empty
  Numbers state;         // [B, H, K, V] or empty
  Numbers d_o, d_state;  // gradients of the results
};

class DeltaRuleOracle {
 public:
  Numbers o, state, d_q, d_k, d_v, d_g, d_state0;

  explicit DeltaRuleOracle(const DeltaRuleInputs& inputs)
      : o(inputs.v.size()),
        state(inputs.d_state.size()),
        d_q(inputs.q.size()),
        d_k(inputs.k.size()),
        d_v(inputs.v.size()),
        d_g(inputs.g.size()),
        d_state0(inputs.d_state.size()),
        in_(inputs) {
    for (int64_t n = 0; n < in_.B * in_.H; ++n) {
      const int64_t K = in_.K, V = in_.V;
      for (int64_t t = 0; t < in_.T; ++t) {
        const size_t row = token(n, t);
        read(n, t, &in_.q[row * at(K)], &in_.d_o[row * at(V)], &o[row * at(V)], &d_q[row * at(K)]);
      }
      for (int64_t i = 0; i < K; ++i) {
        Numbers unit(at(K)), unused(at(K));
        unit[at(i)] = 1;
        const size_t row = at((n * K + i) * V);
        read(n, in_.T - 1, unit.data(), &in_.d_state[row], &state[row], unused.data());
      }
    }
  }

 private:
  static size_t at(int64_t n) { return static_cast<size_t>(n); }
  /// Token t of head n, in tensors [B, T, H].
  size_t token(int64_t n, int64_t t) const {
    return at((n / in_.H * in_.T + t) * in_.H + n % in_.H);
  }
  static double product(int64_t count, const double* a, const double* b) {
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
    return sum;
  }
  static void add(int64_t count, double factor, const double* x, double* to) {
    for (int64_t i = 0; i < count; ++i) to[i] += factor * x[i];
  }

  /// What the query q [K] reads after token `last` of head n, and its gradient from d [V].
  void read(int64_t n, int64_t last, const double* q, const double* d, double* out,
            double* d_query) {
    const int64_t K = in_.K, V = in_.V;
    const auto reset = [&](int64_t s) {
      return !in_.reset.empty() && in_.reset[at(n / in_.H * in_.T + s)] != 0;
    };
    std::vector<Numbers> p;  // p_s of the tokens from `last` down to the first one seen
    Numbers now(q, q + K);
    int64_t s = last;
    bool seen = true;
    for (; s >= 0 && seen; --s) {
      const size_t row = token(n, s);
      const double score = product(K, now.data(), &in_.k[row * at(K)]);
      p.push_back(now);
      add(V, in_.g[row] * score, &in_.v[row * at(V)], out);
      add(K, -in_.g[row] * score, &in_.k[row * at(K)], now.data());
      seen = !reset(s);
    }
    Numbers d_p(at(K));  // of p_{s-1}
    if (seen && !in_.state.empty()) {
      for (int64_t i = 0; i < K; ++i) {
        const size_t row = at((n * K + i) * V);
        add(V, now[at(i)], &in_.state[row], out);
        d_p[at(i)] = product(V, &in_.state[row], d);
      }
    }
    for (int64_t i = 0; i < K && seen; ++i) add(V, now[at(i)], d, &d_state0[at((n * K + i) * V)]);
    for (++s; s <= last; ++s) {
      const size_t row = token(n, s);
      const double *k = &in_.k[row * at(K)], *v = &in_.v[row * at(V)];
      const Numbers& p_s = p[at(last - s)];
      const double score = product(K, p_s.data(), k);
      const double d_gain = product(V, v, d) - product(K, k, d_p.data());  // of g_s * score
      d_g[row] += score * d_gain;
      add(V, in_.g[row] * score, d, &d_v[row * at(V)]);
      add(K, -in_.g[row] * score, d_p.data(), &d_k[row * at(K)]);
      add(K, in_.g[row] * d_gain, p_s.data(), &d_k[row * at(K)]);
      add(K, in_.g[row] * d_gain, k, d_p.data());
    }
    add(K, 1, d_p.data(), d_query);
  }

  const DeltaRuleInputs& in_;
};

}  // namespace regla::test
