#pragma once

#include <cstdint>

/// The delta rule of fast weights (Schlag et al. 2021; Eq. 8), for one head:
///
///     S_t = S_{t-1} - g_t k_t (k_t^T S_{t-1}) + g_t k_t v_t^T
///         = S_{t-1} + k_t u_t^T,   u_t = g_t e_t,   e_t = v_t - S_{t-1}^T k_t
///     o_t = S_t^T q_t
///
/// The state is asked for what it holds under k_t, and the difference e_t to what it should hold is
/// written with strength g_t in (0, 1). K features, V values, S is [K, V].
namespace regla::recurrence {

/// e = v - S^T k
template <class T>
void delta_rule_error(int64_t K, int64_t V, const T* k, const T* v, const T* S, T* e) {
  for (int64_t j = 0; j < V; ++j) e[j] = v[j];
  for (int64_t i = 0; i < K; ++i) {
    for (int64_t j = 0; j < V; ++j) e[j] -= k[i] * S[i * V + j];
  }
}

/// One token: updates S in place and writes o. `e` [V] is scratch.
template <class T>
void delta_rule_step(int64_t K, int64_t V, const T* q, const T* k, const T* v, T g, T* S, T* e,
                     T* o) {
  delta_rule_error(K, V, k, v, S, e);
  for (int64_t j = 0; j < V; ++j) o[j] = 0;
  for (int64_t i = 0; i < K; ++i) {
    T* row = S + i * V;
    for (int64_t j = 0; j < V; ++j) {
      row[j] += k[i] * (g * e[j]);
      o[j] += q[i] * row[j];
    }
  }
}

/// Reverses one token. `S` is the state before it; `d_S` comes in as the gradient of the state
/// after it and leaves as that of the state before it. The other gradients are added to. `e` and
/// `d_u` [V] are scratch.
template <class T>
void delta_rule_step_backward(int64_t K, int64_t V, const T* q, const T* k, const T* v, T g,
                              const T* S, const T* d_o, T* d_S, T* d_q, T* d_k, T* d_v, T* d_g,
                              T* e, T* d_u) {
  delta_rule_error(K, V, k, v, S, e);
  for (int64_t j = 0; j < V; ++j) d_u[j] = 0;
  for (int64_t i = 0; i < K; ++i) {
    for (int64_t j = 0; j < V; ++j) {
      d_q[i] += d_o[j] * (S[i * V + j] + k[i] * (g * e[j]));  // o = S_t^T q
      d_S[i * V + j] += q[i] * d_o[j];
      d_k[i] += d_S[i * V + j] * (g * e[j]);  // S_t = S + k u^T
      d_u[j] += d_S[i * V + j] * k[i];
    }
  }
  for (int64_t j = 0; j < V; ++j) {
    *d_g += d_u[j] * e[j];
    d_v[j] += g * d_u[j];
  }
  for (int64_t i = 0; i < K; ++i) {
    for (int64_t j = 0; j < V; ++j) {
      d_k[i] -= S[i * V + j] * (g * d_u[j]);  // e = v - S^T k
      d_S[i * V + j] -= k[i] * (g * d_u[j]);
    }
  }
}

}  // namespace regla::recurrence
