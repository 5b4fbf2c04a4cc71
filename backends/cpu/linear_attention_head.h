#pragma once

#include "backends/cpu/linear_attention_chunk.h"
#include "backends/cpu/recurrence_heads.h"
#include "backends/cpu/rows_ahead.h"

namespace regla::cpu {

/// What the recurrence reads of one head beside q and k. Absent decays are null.
template <class T>
struct LinearAttentionHead : RecurrenceHead<T> {
  HeadRows<T> u, log_a, log_b;
  const T* log_s;

  LinearAttentionHead(const LinearAttentionArgs& args, int64_t n)
      : RecurrenceHead<T>(args, args.u, n) {
    u = HeadRows<T>(args.u, this->row, this->V, this->v_pitch);
    log_a = HeadRows<T>(args.log_a, this->row, this->K, this->k_pitch);
    log_b = HeadRows<T>(args.log_b, this->row, this->V, this->v_pitch);
    log_s = args.log_s ? args.log_s.data<T>() + this->row : nullptr;
  }

  /// Scalar decays and resets act on the value axis, unless only the key axis decays anyway.
  bool scalar_on_keys() const { return log_a && !log_b; }
  bool keys_decay() const { return static_cast<bool>(log_a); }
  bool values_decay() const {
    return log_b || (!scalar_on_keys() && (log_s != nullptr || this->reset != nullptr));
  }
};

/// The tokens [first, first + C) of a head, packed, with their decays.
template <class T>
struct Chunk {
  int64_t first = 0, C = 0;
  T *q, *k, *u;  // [C, K], [C, K], [C, V]
  Axis<T> keys, values;
  T* W;  // [C, C] scores
  RowsAhead<T> ahead;

  static int64_t scratch(int64_t K, int64_t V, int64_t C) {
    return 2 * C * K + C * V + C * C + Axis<T>::scratch(K, C) + Axis<T>::scratch(V, C);
  }

  Chunk(const LinearAttentionHead<T>& head, int64_t capacity, Arena<T>& arena)
      : q(arena.take(capacity * head.K)),
        k(arena.take(capacity * head.K)),
        u(arena.take(capacity * head.V)) {
    keys.allocate(head.K, head.keys_decay(), capacity, arena);
    values.allocate(head.V, head.values_decay(), capacity, arena);
    W = arena.take(capacity * capacity);
  }

  void load(const LinearAttentionHead<T>& head, int64_t begin, int64_t end) {
    first = begin;
    C = end - begin;
    head.q.load(first, C, q);
    head.k.load(first, C, k);
    head.u.load(first, C, u);
    if (keys.present) load_axis(head, keys, head.log_a, head.scalar_on_keys());
    if (values.present) load_axis(head, values, head.log_b, !head.scalar_on_keys());
  }

  /// The chunk that begins at `next`, if it lies in the sequence, will be loaded after this one;
  /// its rows are fetched in `steps` calls of ahead.fetch().
  void expect(const LinearAttentionHead<T>& head, int64_t next, int64_t steps) {
    const bool exists = next >= 0 && next < head.steps;
    ahead.start(next, exists ? std::min(C, head.steps - next) : 0, steps);
    ahead.add(head.q);
    ahead.add(head.k);
    ahead.add(head.u);
    ahead.add(head.log_a);
    ahead.add(head.log_b);
  }

  /// S <- (decay over the chunk) * S + (keys to the end)^T (values to the end)
  void advance(T* S) {
    const T* k_end = keys.decayed_to(C, k, keys.rows);
    const T* u_end = values.decayed_to(C, u, values.rows);
    update(S, k_end, u_end);
  }

  /// S <- (decay over the chunk) * S + left^T right, right after a `decayed_to(C)` or
  /// `decayed_from_start` of both axes. left: [C, K], right: [C, V].
  void update(T* S, const T* left, const T* right) const {
    const int64_t K = keys.N, V = values.N;
    if (keys.present || values.present) {
      const T *a = keys.through, *b = values.through;
      small_gemm_scaled(K, V, C, transposed(left, K), right, V, a, b, S, V);
    } else {
      small_gemm(K, V, C, transposed(left, K), right, V, S, V);
    }
  }

 private:
  void load_axis(const LinearAttentionHead<T>& head, Axis<T>& axis, const HeadRows<T>& logs,
                 bool with_scalar) {
    for (int64_t t = 0; t < C; ++t) {
      T* factor = axis.factor + t * axis.N;
      const int64_t token = first + t;
      const T scalar = with_scalar && head.log_s ? head.log_s[token * head.s_pitch] : T(0);
      if (with_scalar && head.resets(token)) {
        std::fill_n(factor, axis.N, T(0));
      } else if (!logs) {
        std::fill_n(factor, axis.N, math::exp(scalar));
      } else {
        const T* row = logs.row(token, axis.other);
#pragma omp simd
        for (int64_t n = 0; n < axis.N; ++n) factor[n] = math::exp(row[n] + scalar);
      }
    }
    axis.multiply_up(C);
  }
};

/// o of a chunk [C, V] whose W are its scores, from the state S [K, V] before it:
///     o = mix(W, u) + (q decayed from the chunk's start) S
template <class T>
void outputs(Chunk<T>& chunk, const T* S, T* o) {
  const int64_t C = chunk.C, K = chunk.keys.N, V = chunk.values.N;
  const T* q = chunk.keys.decayed_from_start(C, chunk.q, chunk.keys.rows);
  chunk.ahead.fetch();
  small_product(C, V, K, View<T>{q, K}, S, V, o, V);
  chunk.values.decayed_from_start(C, o, o);
  chunk.ahead.fetch();
  mix(C, chunk.W, chunk.u, chunk.values, o);
  chunk.ahead.fetch();
}

}  // namespace regla::cpu
