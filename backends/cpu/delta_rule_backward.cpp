#include "backends/cpu/delta_rule_chunk.h"
#include "backends/cpu/kernels.h"

namespace regla::cpu {
namespace {

/// Where the gradients of one head come from and go to.
template <class T>
struct HeadGradients {
  HeadRows<T> d_o;
  Rows<T> d_q, d_k, d_v, d_g;

  HeadGradients(const DeltaRuleHead<T>& head, const DeltaRuleGradients& to)
      : d_o(to.d_o, head.row, head.V, head.v_pitch),
        d_q(to.d_q, head.row, head.K, head.k_pitch),
        d_k(to.d_k, head.row, head.K, head.k_pitch),
        d_v(to.d_v, head.row, head.V, head.v_pitch),
        d_g(to.d_g, head.row, 1, head.s_pitch) {}
};

/// The gradients of one chunk, packed like the chunk.
template <class T>
struct ChunkGradients {
  T *d_o, *d_q, *d_k, *d_v, *d_g;       // [C, V], [C, K], [C, K], [C, V], [C]
  T* d_U;                               // [C, V]
  T *W, *d_W, *d_keys;                  // [C, C]: tril(Q K^T), its gradient, that of stril(K K^T)
  T *U_turned, *S_turned, *d_S_turned;  // [V, C], [V, K], [V, K]

  static int64_t scratch(int64_t K, int64_t V, int64_t C) {
    return C * (2 * K + 4 * V + 1 + 3 * C) + 2 * K * V;
  }
  ChunkGradients(int64_t K, int64_t V, int64_t C, Arena<T>& arena)
      : d_o(arena.take(C * V)),
        d_q(arena.take(C * K)),
        d_k(arena.take(C * K)),
        d_v(arena.take(C * V)),
        d_g(arena.take(C)),
        d_U(arena.take(C * V)),
        W(arena.take(C * C)),
        d_W(arena.take(C * C)),
        d_keys(arena.take(C * C)),
        U_turned(arena.take(C * V)),
        S_turned(arena.take(K * V)),
        d_S_turned(arena.take(K * V)) {}
};

/// O = Q S + W U with W = tril(Q K^T), and S_out = S + K^T U. `d_S` is the gradient of S_out.
template <class T>
void outputs_backward(const DeltaRuleChunk<T>& chunk, ChunkGradients<T>& to, T* d_S) {
  const int64_t C = chunk.C, K = chunk.K, V = chunk.V;
  transpose(C, V, chunk.U, V, to.U_turned, C);
  transpose(K, V, d_S, V, to.d_S_turned, K);
  lower_product(C, K, chunk.q, chunk.k_turned, to.W);
  // d_U = K d_S + W^T d_O
  small_product(C, V, K, View<T>{chunk.k, K}, d_S, V, to.d_U, V);
  multiply_lower_transposed(C, V, to.W, to.d_o, to.d_U);
  // d_W = tril(d_O U^T), d_Q = d_O S^T + d_W K
  lower_product(C, V, to.d_o, to.U_turned, to.d_W);
  small_product(C, K, V, View<T>{to.d_o, V}, to.S_turned, K, to.d_q, K);
  multiply_lower(C, K, to.d_W, chunk.k, to.d_q);
  // d_K = U d_S^T + d_W^T Q
  small_product(C, K, V, View<T>{chunk.U, V}, to.d_S_turned, K, to.d_k, K);
  multiply_lower_transposed(C, K, to.d_W, chunk.q, to.d_k);
  // d_S += Q^T d_O
  small_gemm(K, V, C, transposed(chunk.q, K), to.d_o, V, d_S, V);
}

/// U = (I + A)^{-1} R with R = G E and A = G stril(K K^T), and E = V - K S.
template <class T>
void writes_backward(const DeltaRuleChunk<T>& chunk, ChunkGradients<T>& to, T* d_S) {
  const int64_t C = chunk.C, K = chunk.K, V = chunk.V;
  T* d_R = to.d_U;  // d_R = (I + A)^{-T} d_U
  solve_lower_transposed(C, V, chunk.L, d_R);
  lower_product(C, V, d_R, to.U_turned, to.d_keys);  // d_A = -stril(d_R U^T)
  for (int64_t t = 0; t < C; ++t) {
    const T g = chunk.g[t];
    T *row = to.d_keys + t * C, d_g = 0;
    for (int64_t s = 0; s < t; ++s) {
      d_g -= row[s] * chunk.keys[t * C + s];
      row[s] *= -g;
    }
    row[t] = 0;
    for (int64_t j = t * V; j < (t + 1) * V; ++j) {
      d_g += d_R[j] * chunk.E[j];
      to.d_v[j] = g * d_R[j];  // d_V = d_E = G d_R
      d_R[j] = -to.d_v[j];
    }
    to.d_g[t] = d_g;
  }
  multiply_lower(C, K, to.d_keys, chunk.k, to.d_k);
  multiply_lower_transposed(C, K, to.d_keys, chunk.k, to.d_k);
  const T* minus_d_E = d_R;  // d_K -= d_E S^T,  d_S -= K^T d_E
  small_gemm(C, K, V, View<T>{minus_d_E, V}, to.S_turned, K, to.d_k, K);
  small_gemm(K, V, C, transposed(chunk.k, K), minus_d_E, V, d_S, V);
}

/// One head, chunk by chunk from the last.
template <class T>
class HeadBackward {
 public:
  static int64_t scratch(const Segments& segments, int64_t K, int64_t V) {
    const int64_t C = segments.capacity;
    return DeltaRuleChunk<T>::scratch(K, V, C) + ChunkGradients<T>::scratch(K, V, C) +
           ChunkStates<T>::scratch(segments, K, V) + K * V;
  }

  HeadBackward(const DeltaRuleHead<T>& head, const Segments& segments, const T* kept, const T* last,
               Arena<T> arena, const HeadGradients<T>& to)
      : head_(head),
        capacity_(segments.capacity),
        to_(to),
        chunk_(head.K, head.V, capacity_, arena),
        gradients_(head.K, head.V, capacity_, arena),
        states_(segments, head.K, head.V, kept, last, arena),
        zeros_(arena.take(head.K * head.V)) {
    std::fill_n(zeros_, head.K * head.V, T(0));
  }

  /// `d_S` comes in as the gradient of the last state and leaves as that of the first.
  void run(T* d_S) {
    states_.run([&](int64_t begin, T* S) { advance(begin, S); },
                [&](int64_t begin, const T* before, const T*) {
                  for (int64_t end = chunk_end(begin); end > begin; end = chunk_.first) {
                    chunk_.load(head_, head_.piece_begin(begin, end), end);
                    piece_backward(before, d_S);
                  }
                });
  }

 private:
  int64_t chunk_end(int64_t begin) const { return std::min(head_.steps, begin + capacity_); }

  void advance(int64_t begin, T* S) {
    // What a reset inside the chunk empties need not be computed.
    const int64_t end = chunk_end(begin);
    chunk_.load(head_, head_.piece_begin(begin, end), end);
    if (head_.resets(chunk_.first)) std::fill_n(S, head_.K * head_.V, T(0));
    chunk_.solve(S);
    chunk_.advance(S);
  }

  /// `before`: the state before the piece, unless that begins with a reset.
  void piece_backward(const T* before, T* d_S) {
    const int64_t K = head_.K, V = head_.V;
    const bool resets = head_.resets(chunk_.first);
    const T* S = resets ? zeros_ : before;
    to_.d_o.load(chunk_.first, chunk_.C, gradients_.d_o);
    chunk_.solve(S);
    transpose(K, V, S, V, gradients_.S_turned, K);
    outputs_backward(chunk_, gradients_, d_S);
    writes_backward(chunk_, gradients_, d_S);
    if (resets) std::fill_n(d_S, K * V, T(0));
    for (int64_t t = 0; t < chunk_.C; ++t) {
      const int64_t token = chunk_.first + t;
      to_.d_q.put(token, gradients_.d_q + t * K, K);
      to_.d_k.put(token, gradients_.d_k + t * K, K);
      to_.d_v.put(token, gradients_.d_v + t * V, V);
      to_.d_g.put(token, gradients_.d_g + t, 1);
    }
  }

  const DeltaRuleHead<T>& head_;
  int64_t capacity_;  // tokens per chunk
  HeadGradients<T> to_;
  DeltaRuleChunk<T> chunk_;
  ChunkGradients<T> gradients_;
  ChunkStates<T> states_;
  T* zeros_;  // [K, V]
};

}  // namespace

void delta_rule_backward(const DeltaRuleArgs& args, const RecurrenceResult& forward,
                         const DeltaRuleGradients& to) {
  for_sums_of(args.q, "delta_rule", [&](auto tag) {
    using T = decltype(tag);
    using Head = DeltaRuleHead<T>;
    const HeadSizes n(args, args.v);
    backward_heads<T, Head>(
        args, n, HeadBackward<T>::scratch(n.segments, n.K, n.V), forward, to,
        [&](const Head& head, const T* kept, const T* last, Arena<T> arena, T* d_S) {
          const HeadGradients<T> gradients(head, to);
          HeadBackward<T>(head, n.segments, kept, last, arena, gradients).run(d_S);
        });
  });
}

}  // namespace regla::cpu
