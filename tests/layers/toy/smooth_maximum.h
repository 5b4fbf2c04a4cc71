#pragma once

#include <cmath>

#include "core/recurrences/cell.h"

/// 1 of "A new mixer" in CONTRIBUTING.md: the recurrence, for one head. The state remembers, of
/// every pair of a feature and a value, a smooth maximum of their sum over the past, which fades:
///
///     S_t[i,j] = log(a_t e^{S_{t-1}[i,j]} + e^{k_t[i] + v_t[j]}),   o_t[j] = sum_i q_t[i] S_t[i,j]
namespace regla::test::recurrence {

using regla::recurrence::Count, regla::recurrence::Sizes, regla::recurrence::Spaced;

struct SmoothMaximum {
  static constexpr const char* kName = "smooth_maximum";
  static constexpr Count kKeys = {2}, kValues = {1}, kScalars = {1};
  static constexpr int kRoom = 0;

  template <class Key, class Value, class Scalar>
  struct Token {
    Key q, k;      // [K]
    Value v;       // [V]
    Scalar log_a;  // at most 0
  };

  /// log(e^x + e^y); where one of them is NaN, so is this.
  template <class T>
  static constexpr T log_sum(T x, T y) {
    return (x < y ? y : x) + std::log1p(std::exp(-std::abs(x - y)));
  }

  /// One token: updates S in place and writes o.
  template <class T>
  static constexpr void step(const Sizes& n, const Token<const T*, const T*, T>& x, T* S, T* o,
                             T*) {
    for (int64_t j = 0; j < n.V; ++j) o[j] = 0;
    for (int64_t i = 0; i < n.K; ++i) {
      T* row = S + i * n.pitch;
      for (int64_t j = 0; j < n.V; ++j) {
        row[j] = log_sum(row[j] + x.log_a, x.k[i] + x.v[j]);
        o[j] += x.q[i] * row[j];
      }
    }
  }

  /// Reverses one token. `S` is the state before it; `d_S` comes in as the gradient of the state
  /// after it and leaves as that of the state before it. The other gradients are added to.
  template <class T>
  static constexpr void step_backward(const Sizes& n, const Token<const T*, const T*, T>& x,
                                      const T* S, const T* d_o, T* d_S,
                                      const Token<Spaced<T>, T*, T&>& d, T*) {
    for (int64_t i = 0; i < n.K; ++i) {
      for (int64_t j = 0; j < n.V; ++j) {
        const int64_t at = i * n.pitch + j;
        const T kept = S[at] + x.log_a, written = x.k[i] + x.v[j];
        d.q[i] += d_o[j] * log_sum(kept, written);  // o = S_t^T q
        const T d_S_t = d_S[at] + x.q[i] * d_o[j];
        const T d_kept = d_S_t / (1 + std::exp(written - kept));  // log(e^kept + e^written)
        d.k[i] += d_S_t - d_kept;
        d.v[j] += d_S_t - d_kept;
        d.log_a += d_kept;
        d_S[at] = d_kept;
      }
    }
  }
};

}  // namespace regla::test::recurrence
