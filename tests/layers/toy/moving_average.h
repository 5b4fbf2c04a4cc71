#pragma once

#include <cstdint>

/// 1 of "A new mixer" in CONTRIBUTING.md: the recurrence, for one head of V values.
///
///     m_t = a m_{t-1} + (1 - a) v_t,   o_t = m_t
namespace regla::test::recurrence {

/// One token: m moves on in place and is the output.
template <class T>
void moving_average_step(int64_t V, T a, const T* v, T* m) {
  for (int64_t j = 0; j < V; ++j) m[j] = a * m[j] + (1 - a) * v[j];
}

/// Reverses one token. `m` is the state before it; `d_m` comes in as the gradient of the state
/// after it, output included, and leaves as that of `m`. The others are added to.
template <class T>
void moving_average_step_backward(int64_t V, T a, const T* v, const T* m, T* d_m, T* d_v, T& d_a) {
  for (int64_t j = 0; j < V; ++j) {
    d_a += d_m[j] * (m[j] - v[j]);
    d_v[j] += (1 - a) * d_m[j];
    d_m[j] *= a;
  }
}

}  // namespace regla::test::recurrence
