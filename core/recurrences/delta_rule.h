#pragma once

#include "core/recurrences/cell.h"

namespace regla::recurrence {

/// The delta rule of fast weights (Schlag et al. 2021; Eq. 8), for one head:
///
///     S_t = S_{t-1} - g_t k_t (k_t^T S_{t-1}) + g_t k_t v_t^T
///         = S_{t-1} + k_t u_t^T,   u_t = g_t e_t,   e_t = v_t - S_{t-1}^T k_t
///     o_t = S_t^T q_t
///
/// The state is asked for what it holds under k_t, and the difference e_t to what it should hold is
/// written with strength g_t in (0, 1). K features, V values, S is [K, V].
struct DeltaRule {
  static constexpr const char* kName = "delta_rule";
  static constexpr Count kKeys = {2}, kValues = {1}, kScalars = {1};
  static constexpr int kRoom = 2;  // e, d_u

  template <class Key, class Value, class Scalar>
  struct Token {
    Key q, k;  // [K]
    Value v;   // [V]
    Scalar g;
  };

  /// e = v - S^T k
  template <class T>
  static constexpr void error(const Sizes& n, const T* k, const T* v, const T* S, T* e) {
    for (int64_t j = 0; j < n.V; ++j) e[j] = v[j];
    for (int64_t i = 0; i < n.K; ++i) {
      for (int64_t j = 0; j < n.V; ++j) e[j] -= k[i] * S[i * n.pitch + j];
    }
  }

  /// One token: updates S in place and writes o.
  template <class T>
  static constexpr void step(const Sizes& n, const Token<const T*, const T*, T>& x, T* S, T* o,
                             T* e) {
    error(n, x.k, x.v, S, e);
    for (int64_t j = 0; j < n.V; ++j) o[j] = 0;
    for (int64_t i = 0; i < n.K; ++i) {
      T* row = S + i * n.pitch;
      for (int64_t j = 0; j < n.V; ++j) {
        row[j] += x.k[i] * (x.g * e[j]);
        o[j] += x.q[i] * row[j];
      }
    }
  }

  /// Reverses one token. `S` is the state before it; `d_S` comes in as the gradient of the state
  /// after it and leaves as that of the state before it. The other gradients are added to.
  template <class T>
  static constexpr void step_backward(const Sizes& n, const Token<const T*, const T*, T>& x,
                                      const T* S, const T* d_o, T* d_S,
                                      const Token<Spaced<T>, T*, T&>& d, T* room) {
    T *e = room, *d_u = room + n.V;
    error(n, x.k, x.v, S, e);
    for (int64_t j = 0; j < n.V; ++j) d_u[j] = 0;
    for (int64_t i = 0; i < n.K; ++i) {
      T d_q_i = 0, d_k_i = 0;
      for (int64_t j = 0; j < n.V; ++j) {
        const int64_t at = i * n.pitch + j;
        d_q_i += d_o[j] * (S[at] + x.k[i] * (x.g * e[j]));  // o = S_t^T q
        d_S[at] += x.q[i] * d_o[j];
        d_k_i += d_S[at] * (x.g * e[j]);  // S_t = S + k u^T
        d_u[j] += d_S[at] * x.k[i];
      }
      d.q[i] += d_q_i;
      d.k[i] += d_k_i;
    }
    for (int64_t j = 0; j < n.V; ++j) {
      d.g += d_u[j] * e[j];
      d.v[j] += x.g * d_u[j];
    }
    for (int64_t i = 0; i < n.K; ++i) {
      T d_k_i = 0;
      for (int64_t j = 0; j < n.V; ++j) {
        const int64_t at = i * n.pitch + j;
        d_k_i += S[at] * (x.g * d_u[j]);  // e = v - S^T k
        d_S[at] -= x.k[i] * (x.g * d_u[j]);
      }
      d.k[i] -= d_k_i;
    }
  }
};

}  // namespace regla::recurrence
