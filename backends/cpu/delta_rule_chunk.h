#pragma once

#include "backends/cpu/recurrence_heads.h"
#include "backends/cpu/triangular.h"

// The delta rule over a chunk of C tokens (Schlag et al. 2021; the form of Yang et al. 2024). With
// the rows u_t = g_t (v_t - S_{t-1}^T k_t) that the tokens write, S_{t-1} = S + sum_{s<t} k_s u_s^T
// gives, for G = diag(g) and the state S before the chunk,
//
//     U = G (V - K S) - A U,   A = G stril(K K^T)
//     U = (I + A)^{-1} G E,    E = V - K S
//     O = Q S + tril(Q K^T) U,   S_out = S + K^T U
//
// (stril: below the diagonal): products of matrices and one triangular system instead of C tokens
// one after the other. I + A always has an inverse, whatever g is.
namespace regla::cpu {

/// What the recurrence reads of one head beside q and k.
template <class T>
struct DeltaRuleHead : RecurrenceHead<T> {
  HeadRows<T> v;
  const T* g;

  DeltaRuleHead(const DeltaRuleArgs& args, int64_t n)
      : RecurrenceHead<T>(args, args.v, n),
        v(args.v, this->row, this->V, this->v_pitch),
        g(args.g.data<T>() + this->row) {}

  // The tokens between two resets do not see the others, so a chunk falls into pieces, each of
  // which begins with a reset or where the chunk begins.

  /// The end of the piece of a chunk's tokens [begin, end) that starts at `begin`.
  int64_t piece_end(int64_t begin, int64_t end) const {
    for (int64_t t = begin + 1; t < end; ++t) {
      if (this->resets(t)) return t;
    }
    return end;
  }
  /// The beginning of the piece of [begin, end) that ends at `end`.
  int64_t piece_begin(int64_t begin, int64_t end) const {
    for (int64_t t = end - 1; t > begin; --t) {
      if (this->resets(t)) return t;
    }
    return begin;
  }
};

/// The tokens [first, first + C) of a head, packed, none but the first of which resets.
template <class T>
struct DeltaRuleChunk {
  int64_t first = 0, C = 0, K, V;
  T *q, *k, *v, *g;  // [C, K], [C, K], [C, V], [C]
  T* k_turned;       // [K, C]
  T* keys;           // [C, C] tril(K K^T)
  T* L;              // [C, C] -A below the diagonal
  T *E, *U;          // [C, V]

  static int64_t scratch(int64_t K, int64_t V, int64_t C) {
    return C * (3 * K + 3 * V + 1 + 2 * C);
  }

  DeltaRuleChunk(int64_t features, int64_t values, int64_t capacity, Arena<T>& arena)
      : K(features),
        V(values),
        q(arena.take(capacity * K)),
        k(arena.take(capacity * K)),
        v(arena.take(capacity * V)),
        g(arena.take(capacity)),
        k_turned(arena.take(capacity * K)),
        keys(arena.take(capacity * capacity)),
        L(arena.take(capacity * capacity)),
        E(arena.take(capacity * V)),
        U(arena.take(capacity * V)) {}

  void load(const DeltaRuleHead<T>& head, int64_t begin, int64_t end) {
    first = begin;
    C = end - begin;
    head.q.load(first, C, q);
    head.k.load(first, C, k);
    head.v.load(first, C, v);
    copy_rows(C, 1, head.g + first * head.s_pitch, head.s_pitch, g, 1);
  }

  /// E and U from the state before the chunk.
  void solve(const T* S) {
    transpose(C, K, k, K, k_turned, C);
    lower_product(C, K, k, k_turned, keys);
    small_product(C, V, K, View<T>{k, K}, S, V, E, V);
    for (int64_t t = 0; t < C; ++t) {
      for (int64_t s = 0; s < t; ++s) L[t * C + s] = -g[t] * keys[t * C + s];
      for (int64_t j = t * V; j < (t + 1) * V; ++j) {
        E[j] = v[j] - E[j];
        U[j] = g[t] * E[j];
      }
    }
    solve_lower(C, V, L, U);
  }

  /// S <- S + K^T U
  void advance(T* S) const { small_gemm(K, V, C, transposed(k, K), U, V, S, V); }
};

}  // namespace regla::cpu
