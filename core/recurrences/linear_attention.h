#pragma once

#include "core/recurrences/cell.h"

namespace regla::recurrence {

/// The recurrence behind every gated linear attention (docs/math.md, "The recurrence"), one head:
///
///     S_t[i,j] = s_t * a_t[i] * b_t[j] * S_{t-1}[i,j] + k_t[i] * u_t[j]
///     o_t[j]   = sum_i q_t[i] * S_t[i,j]
///
/// ReGLA (Eq. 15) is s = a = 1, b = F_t (Eq. 16), u = v. K features, V values, S is [K, V]. In row
/// form the inner loop runs over j and has no reduction, so it vectorises by itself.
struct LinearAttention {
  static constexpr const char* kName = "linear_attention";
  static constexpr Count kKeys = {2, 1}, kValues = {1, 1}, kScalars = {0, 1};
  static constexpr int kRoom = 0;

  template <class Key, class Value, class Scalar>
  struct Token {
    Key q, k, a;  // [K]
    Value u, b;   // [V]
    Scalar s;
  };

  /// One token: updates S in place and writes o.
  template <class T>
  static constexpr void step(const Sizes& n, const Token<const T*, const T*, T>& x, T* S, T* o,
                             T* = nullptr) {
    for (int64_t j = 0; j < n.V; ++j) o[j] = 0;
    for (int64_t i = 0; i < n.K; ++i) {
      const T a_i = x.s * x.a[i], k_i = x.k[i], q_i = x.q[i];
      T* row = S + i * n.pitch;
      for (int64_t j = 0; j < n.V; ++j) {
        row[j] = a_i * x.b[j] * row[j] + k_i * x.u[j];
        o[j] += q_i * row[j];
      }
    }
  }

  /// Reverses one token. `S` is the state before it; `d_S` comes in as the gradient of the state
  /// after it and leaves as that of the state before it. Gradients are added to, and those of the
  /// decays are taken with respect to their logs.
  template <class T>
  static constexpr void step_backward(const Sizes& n, const Token<const T*, const T*, T>& x,
                                      const T* S, const T* d_o, T* d_S,
                                      const Token<Spaced<T>, T*, T&>& d, T* = nullptr) {
    for (int64_t i = 0; i < n.K; ++i) {
      const T a_i = x.s * x.a[i], k_i = x.k[i], q_i = x.q[i];
      T d_q_i = 0, d_k_i = 0, d_log_a_i = 0;
      for (int64_t j = 0; j < n.V; ++j) {
        const int64_t at = i * n.pitch + j;
        const T factor = a_i * x.b[j], decayed = factor * S[at];  // the first term of S_t
        d_q_i += d_o[j] * (decayed + k_i * x.u[j]);               // o_t[j] = sum_i q[i] S_t[i,j]
        const T d_S_t = d_S[at] + q_i * d_o[j];
        d_k_i += d_S_t * x.u[j];
        d.u[j] += d_S_t * k_i;
        d_log_a_i += d_S_t * decayed;
        d.b[j] += d_S_t * decayed;
        d_S[at] = d_S_t * factor;
      }
      d.q[i] += d_q_i;
      d.k[i] += d_k_i;
      d.a[i] += d_log_a_i;
      d.s += d_log_a_i;
    }
  }
};

}  // namespace regla::recurrence
