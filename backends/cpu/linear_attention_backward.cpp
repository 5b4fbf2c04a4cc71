#include <algorithm>

#include "backends/cpu/kernels.h"
#include "backends/cpu/linear_attention_head.h"
#include "backends/cpu/loops.h"

namespace regla::cpu {
namespace {

/// Where the gradients of one head come from and go to. `o` is absent where it is computed again:
/// d_log is a sum of differences that may cancel, and a rounded o would leave it little but its
/// error.
template <class T>
struct HeadGradients {
  HeadRows<T> o, d_o;
  Rows<T> d_q, d_k, d_u, d_log_a, d_log_b, d_log_s;

  HeadGradients(const LinearAttentionHead<T>& head, const Tensor& out,
                const LinearAttentionGradients& to)
      : o(!out || out.dtype() == DType::BF16 ? Tensor{} : out, head.row, head.V, head.v_pitch),
        d_o(to.d_o, head.row, head.V, head.v_pitch),
        d_q(to.d_q, head.row, head.K, head.k_pitch),
        d_k(to.d_k, head.row, head.K, head.k_pitch),
        d_u(to.d_u, head.row, head.V, head.v_pitch),
        d_log_a(to.d_log_a, head.row, head.K, head.k_pitch),
        d_log_b(to.d_log_b, head.row, head.V, head.v_pitch),
        d_log_s(to.d_log_s, head.row, 1, head.s_pitch) {}
};

/// The gradients of one chunk, packed like the chunk.
template <class T>
struct ChunkGradients {
  T *o, *d_o, *d_q, *d_k, *d_u;  // [C, V], [C, V], [C, K], [C, K], [C, V]
  T* dW;                         // [C, C]
  T *S_turned, *dS_turned;       // [V, K]

  static int64_t scratch(int64_t K, int64_t V, int64_t C) {
    return C * (2 * K + 3 * V + C) + 2 * K * V;
  }
  ChunkGradients(int64_t K, int64_t V, int64_t C, Arena<T>& arena)
      : o(arena.take(C * V)),
        d_o(arena.take(C * V)),
        d_q(arena.take(C * K)),
        d_k(arena.take(C * K)),
        d_u(arena.take(C * V)),
        dW(arena.take(C * C)),
        S_turned(arena.take(K * V)),
        dS_turned(arena.take(K * V)) {}
};

/// What the chunk's tokens owe to the states at both ends. `S` is the state before the chunk; `dS`
/// comes in as the gradient of the state after it and leaves as that of the state before it.
template <class T>
void states_backward(Chunk<T>& chunk, ChunkGradients<T>& g, const T* S, T* dS) {
  const int64_t C = chunk.C, K = chunk.keys.N, V = chunk.values.N;
  transpose(K, V, S, V, g.S_turned, K);
  transpose(K, V, dS, V, g.dS_turned, K);
  chunk.ahead.fetch();
  // S_out = decay S_in + (keys to the end)^T (values to the end)
  const T* u_end = chunk.values.decayed_to(C, chunk.u, chunk.values.rows);
  small_product(C, K, V, View<T>{u_end, V}, g.dS_turned, K, g.d_k, K);
  chunk.keys.decayed_to(C, g.d_k, g.d_k);
  const T* k_end = chunk.keys.decayed_to(C, chunk.k, chunk.keys.rows);
  small_product(C, V, K, View<T>{k_end, K}, dS, V, g.d_u, V);
  chunk.ahead.fetch();
  chunk.values.decayed_to(C, g.d_u, g.d_u);
  // o += (q from the start) S_in, decayed from the start
  const T* d_o = chunk.values.decayed_from_start(C, g.d_o, chunk.values.rows);
  const T* q = chunk.keys.decayed_from_start(C, chunk.q, chunk.keys.rows);
  chunk.update(dS, q, d_o);
  chunk.ahead.fetch();
  small_product(C, K, V, View<T>{d_o, V}, g.S_turned, K, g.d_q, K);
  chunk.ahead.fetch();
  chunk.keys.decayed_from_start(C, g.d_q, g.d_q);
}

/// The tokens' effect on each other: reverses scores and mix.
template <class T>
void tokens_backward(Chunk<T>& chunk, ChunkGradients<T>& g) {
  const int64_t C = chunk.C;
  scores(C, chunk.q, chunk.k, chunk.keys, chunk.W);
  chunk.ahead.fetch();
  scores(C, g.d_o, chunk.u, chunk.values, g.dW);
  chunk.ahead.fetch();
  mix(C, g.dW, chunk.k, chunk.keys, g.d_q);
  chunk.ahead.fetch();
  mix_transposed(C, g.dW, chunk.q, chunk.keys, g.d_k);
  chunk.ahead.fetch();
  mix_transposed(C, chunk.W, g.d_o, chunk.values, g.d_u);
}

/// d_log of one axis, as suffix sums over the chunk (docs/math.md, "Three forms"): `total` starts
/// as the boundary term sum(S_out * dS_out) and grows by out * d_out - in * d_in per token. A token
/// that resets cuts the sum: its decay is 0 whatever the log.
template <class T, class Emit>
void log_decay_backward(const LinearAttentionHead<T>& head, int64_t first, int64_t C, int64_t N,
                        const T* out, const T* d_out, const T* in, const T* d_in, T* total,
                        Emit&& emit) {
  for (int64_t t = C - 1; t >= 0; --t) {
    for (int64_t n = 0; n < N; ++n) {
      total[n] += out[t * N + n] * d_out[t * N + n] - in[t * N + n] * d_in[t * N + n];
    }
    if (head.resets(first + t)) std::fill_n(total, N, T(0));
    emit(first + t, total);
  }
}

template <class T>
void decays_backward(const LinearAttentionHead<T>& head, const Chunk<T>& chunk,
                     const ChunkGradients<T>& g, T* key_total, T* value_total,
                     const HeadGradients<T>& to) {
  const int64_t K = head.K, V = head.V;
  const auto put_scalar = [&](int64_t token, const T* total, int64_t N) {
    const T sum = sum_of(N, [=](int64_t n) { return total[n]; });
    to.d_log_s.put(token, &sum, 1);
  };
  const bool scalar_on_values = to.d_log_s && !head.scalar_on_keys();
  const bool scalar_on_keys = to.d_log_s && head.scalar_on_keys();
  if (to.d_log_b || scalar_on_values) {
    log_decay_backward(head, chunk.first, chunk.C, V, g.o, g.d_o, chunk.u, g.d_u, value_total,
                       [&](int64_t token, const T* total) {
                         to.d_log_b.put(token, total, V);
                         if (scalar_on_values) put_scalar(token, total, V);
                       });
  }
  if (to.d_log_a || scalar_on_keys) {
    log_decay_backward(head, chunk.first, chunk.C, K, chunk.q, g.d_q, chunk.k, g.d_k, key_total,
                       [&](int64_t token, const T* total) {
                         to.d_log_a.put(token, total, K);
                         if (scalar_on_keys) put_scalar(token, total, K);
                       });
  }
}

/// One head, chunk by chunk from the last.
template <class T>
class HeadBackward {
 public:
  static int64_t scratch(const Segments& segments, int64_t K, int64_t V) {
    const int64_t C = segments.capacity;
    return Chunk<T>::scratch(K, V, C) + ChunkGradients<T>::scratch(K, V, C) + K + V +
           ChunkStates<T>::scratch(segments, K, V);
  }

  HeadBackward(const LinearAttentionHead<T>& head, const Segments& segments, const T* kept,
               const T* last, Arena<T> arena, const HeadGradients<T>& to)
      : head_(head),
        capacity_(segments.capacity),
        to_(to),
        chunk_(head, capacity_, arena),
        g_(head.K, head.V, capacity_, arena),
        key_total_(arena.take(head.K)),
        value_total_(arena.take(head.V)),
        states_(segments, head.K, head.V, kept, last, arena) {}

  /// `dS` comes in as the gradient of the last state and leaves as that of the first.
  void run(T* dS) {
    const auto load = [&](int64_t begin) {
      chunk_.load(head_, begin, std::min(head_.steps, begin + capacity_));
    };
    states_.run(
        [&](int64_t begin, T* S) {
          load(begin);
          chunk_.advance(S);
        },
        [&](int64_t begin, const T* before, const T* after) {
          load(begin);
          chunk_backward(before, after, dS);
        });
  }

 private:
  /// The boundary terms sum(S_out * dS_out) of the axes that decay.
  void state_totals(const T* after, const T* dS) {
    const int64_t K = head_.K, V = head_.V;
    if (head_.values_decay()) {
      by_columns<T>(V, [&](auto columns, int64_t j) {
        using Piece = typename decltype(columns)::type;
        Piece sum{};
        for (int64_t i = j; i < K * V; i += V) sum += load<Piece>(after + i) * load<Piece>(dS + i);
        store(value_total_ + j, sum);
      });
    }
    if (head_.keys_decay()) {
      for (int64_t i = 0; i < K; ++i) {
        const T *row = after + i * V, *d_row = dS + i * V;
        key_total_[i] = sum_of(V, [=](int64_t j) { return row[j] * d_row[j]; });
      }
    }
  }

  void chunk_backward(const T* before, const T* after, T* dS) {
    const int64_t K = head_.K, V = head_.V;
    state_totals(after, dS);
    if (to_.o) to_.o.load(chunk_.first, chunk_.C, g_.o);
    to_.d_o.load(chunk_.first, chunk_.C, g_.d_o);
    chunk_.expect(head_, chunk_.first - capacity_, 8);
    chunk_.ahead.add(to_.o);
    chunk_.ahead.add(to_.d_o);
    chunk_.ahead.add(states_.next(), K * V);
    states_backward(chunk_, g_, before, dS);
    tokens_backward(chunk_, g_);
    if (!to_.o && head_.values_decay()) outputs(chunk_, before, g_.o);
    decays_backward(head_, chunk_, g_, key_total_, value_total_, to_);
    for (int64_t t = 0; t < chunk_.C; ++t) {
      const int64_t token = chunk_.first + t;
      to_.d_q.put(token, g_.d_q + t * K, K);
      to_.d_k.put(token, g_.d_k + t * K, K);
      to_.d_u.put(token, g_.d_u + t * V, V);
    }
  }

  const LinearAttentionHead<T>& head_;
  int64_t capacity_;  // tokens per chunk
  HeadGradients<T> to_;
  Chunk<T> chunk_;
  ChunkGradients<T> g_;
  T *key_total_, *value_total_;
  ChunkStates<T> states_;
};

}  // namespace

void linear_attention_backward(const LinearAttentionArgs& args, const RecurrenceResult& forward,
                               const LinearAttentionGradients& to) {
  for_sums_of(args.q, "linear_attention", [&](auto tag) {
    using T = decltype(tag);
    using Head = LinearAttentionHead<T>;
    const HeadSizes n(args, args.u);
    backward_heads<T, Head>(
        args, n, HeadBackward<T>::scratch(n.segments, n.K, n.V), forward, to,
        [&](const Head& head, const T* kept, const T* last, Arena<T> arena, T* dS) {
          const HeadGradients<T> gradients(head, forward.o, to);
          HeadBackward<T>(head, n.segments, kept, last, arena, gradients).run(dS);
        });
  });
}

}  // namespace regla::cpu
