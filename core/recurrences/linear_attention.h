#pragma once

#include <cstdint>

/// The recurrence behind every gated linear attention (docs/math.md, "The recurrence"), one head:
///
///     S_t[i,j] = a_t[i] * b_t[j] * S_{t-1}[i,j] + k_t[i] * u_t[j]
///     o_t[j]   = sum_i q_t[i] * S_t[i,j]
///
/// ReGLA (Eq. 15) is a = 1, b = F_t (Eq. 16), u = v. K features, V values, S is [K, V]. In row form
/// the inner loop runs over j and has no reduction, so it vectorises by itself.
namespace regla::recurrence {

/// A decay factor that may be absent, which means 1.
template <class T>
T factor_at(const T* factors, int64_t i) {
  return factors == nullptr ? T(1) : factors[i];
}

/// One token: updates S in place and writes o.
template <class T>
void linear_attention_step(int64_t K, int64_t V, const T* q, const T* k, const T* u, const T* a,
                           const T* b, T* S, T* o) {
  for (int64_t j = 0; j < V; ++j) o[j] = 0;
  for (int64_t i = 0; i < K; ++i) {
    const T a_i = factor_at(a, i), k_i = k[i], q_i = q[i];
    T* row = S + i * V;
    for (int64_t j = 0; j < V; ++j) {
      row[j] = a_i * factor_at(b, j) * row[j] + k_i * u[j];
      o[j] += q_i * row[j];
    }
  }
}

/// Reverses one token. `S` is the state before it; `d_S` comes in as the gradient of the state
/// after it and leaves as that of the state before it. Gradients are added to, and those of the
/// decays are taken with respect to their logs.
template <class T>
void linear_attention_step_backward(int64_t K, int64_t V, const T* q, const T* k, const T* u,
                                    const T* a, const T* b, const T* S, const T* d_o, T* d_S,
                                    T* d_q, T* d_k, T* d_u, T* d_log_a, T* d_log_b) {
  for (int64_t i = 0; i < K; ++i) {
    const T a_i = factor_at(a, i);
    for (int64_t j = 0; j < V; ++j) {
      const T decayed = a_i * factor_at(b, j) * S[i * V + j];  // the first term of S_t
      d_q[i] += d_o[j] * (decayed + k[i] * u[j]);              // o_t[j] = sum_i q[i] S_t[i,j]
      const T d_S_t = d_S[i * V + j] + q[i] * d_o[j];
      d_k[i] += d_S_t * u[j];
      d_u[j] += d_S_t * k[i];
      d_log_a[i] += d_S_t * decayed;
      d_log_b[j] += d_S_t * decayed;
      d_S[i * V + j] = d_S_t * a_i * factor_at(b, j);
    }
  }
}

}  // namespace regla::recurrence
