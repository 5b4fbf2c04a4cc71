#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/tensor.h"

// The gated linear attention (docs/math.md, "The recurrence") as the sum it stands for, in double,
// with gradients, written from the formulas. With token 0 for the initial state and D the decay
// from after token s through token t,
//
//     W_0 = S_0,  W_s[i,j] = k_s[i] u_s[j]
//     D_st[i,j] = prod_{r=s+1..t} a_r[i] b_r[j] g_r          (0 across a token that resets)
//     o_t[j] = sum_{s<=t} sum_i q_t[i] D_st[i,j] W_s[i,j]       S_T = sum_s D_sT * W_s
//
// so one term is q_t[i] D_st[i,j] W_s[i,j] d_o_t[j], and its derivative by the log of any factor of
// D_st is the term itself. O(T^2 K V) per head.
namespace regla::test {

using Numbers = std::vector<double>;

/// Sequences of heads, laid out as the tensors are. Empty: absent.
struct OracleInputs {
  int64_t B, T, H, K, V;
  Numbers q, k;                 // [B, T, H, K]
  Numbers u;                    // [B, T, H, V]
  Numbers log_a, log_b, log_s;  // [B, T, H, K], [B, T, H, V], [B, T, H]
  Numbers reset;                // [B, T]
  Numbers state;                // [B, H, K, V]
  Numbers d_o, d_state;         // gradients of the results
};
struct OracleResult {
  Numbers o, state;
  Numbers d_q, d_k, d_u, d_log_a, d_log_b, d_log_s, d_state0;
};

class Oracle {
 public:
  explicit Oracle(const OracleInputs& inputs)
      : in_(inputs), a_(exp(in_.log_a)), b_(exp(in_.log_b)), g_(exp(in_.log_s)) {
    const size_t heads = size(in_.B * in_.H), tokens = size(in_.B * in_.T * in_.H);
    result_.o.resize(tokens * size(in_.V));
    result_.state.resize(heads * size(in_.K * in_.V));
    result_.d_q.resize(in_.q.size());
    result_.d_k.resize(in_.k.size());
    result_.d_u.resize(in_.u.size());
    result_.d_log_a.resize(tokens * size(in_.K));
    result_.d_log_b.resize(tokens * size(in_.V));
    result_.d_log_s.resize(tokens);
    result_.d_state0.resize(result_.state.size());
    for (int64_t b = 0; b < in_.B; ++b) {
      for (int64_t h = 0; h < in_.H; ++h) {
        for (int64_t s = 0; s <= in_.T; ++s) add_source(b, h, s);
      }
    }
  }

  const OracleResult& result() const { return result_; }

 private:
  static size_t size(int64_t n) { return static_cast<size_t>(n); }
  static Numbers exp(Numbers logs) {
    for (double& x : logs) x = std::exp(x);
    return logs;
  }
  // Tokens count from 1, as in the formulas.
  size_t token(int64_t b, int64_t t, int64_t h) const {
    return size((b * in_.T + t - 1) * in_.H + h);
  }
  size_t key(int64_t b, int64_t t, int64_t h, int64_t i) const {
    return token(b, t, h) * size(in_.K) + size(i);
  }
  size_t value(int64_t b, int64_t t, int64_t h, int64_t j) const {
    return token(b, t, h) * size(in_.V) + size(j);
  }
  size_t cell(int64_t b, int64_t h, int64_t i, int64_t j) const {
    return size(((b * in_.H + h) * in_.K + i) * in_.V + j);
  }

  double factor(int64_t b, int64_t t, int64_t h, int64_t i, int64_t j) const {
    if (!in_.reset.empty() && in_.reset[size(b * in_.T + t - 1)] != 0) return 0;
    double product = 1;
    if (!a_.empty()) product *= a_[key(b, t, h, i)];
    if (!b_.empty()) product *= b_[value(b, t, h, j)];
    if (!g_.empty()) product *= g_[token(b, t, h)];
    return product;
  }

  /// Everything that token s wrote, wherever it is read.
  void add_source(int64_t b, int64_t h, int64_t s) {
    for (int64_t i = 0; i < in_.K; ++i) {
      for (int64_t j = 0; j < in_.V; ++j) {
        const bool initial = s == 0;
        if (initial && in_.state.empty()) continue;
        const double w = initial ? in_.state[cell(b, h, i, j)]
                                 : in_.k[key(b, s, h, i)] * in_.u[value(b, s, h, j)];
        const double d_w = add_cell(b, h, s, i, j, w);
        if (initial) {
          result_.d_state0[cell(b, h, i, j)] += d_w;
        } else {
          result_.d_k[key(b, s, h, i)] += d_w * in_.u[value(b, s, h, j)];
          result_.d_u[value(b, s, h, j)] += d_w * in_.k[key(b, s, h, i)];
        }
      }
    }
  }

  /// The same for one component of the state; the gradient of what was written.
  double add_cell(int64_t b, int64_t h, int64_t s, int64_t i, int64_t j, double w) {
    Numbers decay(size(in_.T + 1), 1);  // D_st
    for (int64_t t = s + 1; t <= in_.T; ++t) {
      decay[size(t)] = decay[size(t - 1)] * factor(b, t, h, i, j);
    }
    const double last = decay[size(in_.T)], d_last = in_.d_state[cell(b, h, i, j)];
    result_.state[cell(b, h, i, j)] += last * w;
    double d_w = last * d_last;
    double later = last * w * d_last;  // the terms that read at token t or later
    for (int64_t t = in_.T; t >= std::max<int64_t>(s, 1); --t) {
      const double D = decay[size(t)], q = in_.q[key(b, t, h, i)], d = in_.d_o[value(b, t, h, j)];
      result_.o[value(b, t, h, j)] += q * D * w;
      result_.d_q[key(b, t, h, i)] += D * w * d;
      d_w += q * D * d;
      later += q * D * w * d;
      if (t == s) break;
      result_.d_log_a[key(b, t, h, i)] += later;
      result_.d_log_b[value(b, t, h, j)] += later;
      result_.d_log_s[token(b, t, h)] += later;
    }
    return d_w;
  }

  const OracleInputs& in_;
  Numbers a_, b_, g_;
  OracleResult result_;
};

/// Softmax attention (Eq. 1), naively, with gradients. Query t (from 0) sees the keys s with
/// first[b, t] <= s <= past + t and s > past + t - window.
struct SoftmaxOracle {
  Numbers o, d_q, d_k, d_v;
};
struct SoftmaxOracleInputs {
  int64_t B, T, capacity, length, H, K, V, window;
  double scale;
  Numbers q, k, v;  // [B, T, H, K], [B, capacity, H, K], [B, capacity, H, V]
  Numbers first;    // [B, T] or empty
  Numbers d_o;      // [B, T, H, V]
};

inline SoftmaxOracle softmax_oracle(const SoftmaxOracleInputs& in) {
  SoftmaxOracle out = {Numbers(in.d_o.size()), Numbers(in.q.size()), Numbers(in.k.size()),
                       Numbers(in.v.size())};
  const auto at = [](int64_t n) { return static_cast<size_t>(n); };
  for (int64_t b = 0; b < in.B; ++b) {
    for (int64_t t = 0; t < in.T; ++t) {
      for (int64_t h = 0; h < in.H; ++h) {
        const int64_t row = (b * in.T + t) * in.H + h, own = in.length - in.T + t;
        const auto entry = [&](int64_t s) { return (b * in.capacity + s) * in.H + h; };
        std::vector<int64_t> seen;
        for (int64_t s = 0; s <= own; ++s) {
          if (in.window > 0 && s <= own - in.window) continue;
          if (!in.first.empty() && s < static_cast<int64_t>(in.first[at(b * in.T + t)])) continue;
          seen.push_back(s);
        }
        Numbers p;
        double sum = 0, mean_d_p = 0;
        for (int64_t s : seen) {
          double score = 0;
          for (int64_t i = 0; i < in.K; ++i) {
            score += in.scale * in.q[at(row * in.K + i)] * in.k[at(entry(s) * in.K + i)];
          }
          p.push_back(std::exp(score));
          sum += p.back();
        }
        Numbers d_p;
        for (size_t n = 0; n < seen.size(); ++n) {
          p[n] /= sum;
          d_p.push_back(0);
          for (int64_t j = 0; j < in.V; ++j) {
            const size_t o = at(row * in.V + j), v = at(entry(seen[n]) * in.V + j);
            out.o[o] += p[n] * in.v[v];
            out.d_v[v] += p[n] * in.d_o[o];
            d_p[n] += in.d_o[o] * in.v[v];
          }
          mean_d_p += p[n] * d_p[n];
        }
        for (size_t n = 0; n < seen.size(); ++n) {
          const double d_score = in.scale * p[n] * (d_p[n] - mean_d_p);
          for (int64_t i = 0; i < in.K; ++i) {
            const size_t q = at(row * in.K + i), k = at(entry(seen[n]) * in.K + i);
            out.d_q[q] += d_score * in.k[k];
            out.d_k[k] += d_score * in.q[q];
          }
        }
      }
    }
  }
  return out;
}

}  // namespace regla::test
