#include "core/recurrences/linear_attention.h"

#include "backends/cpu/chunk_states.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/linear_attention_head.h"
#include "core/parallel.h"

namespace regla::cpu {
namespace {

/// The chunked form of one head: o and the last state, S [K, V] being updated in place.
///     o = mix(scores(q, k), u) + (q decayed from the chunk's start) S
/// `kept` takes the states that backward starts from.
template <class T>
void forward_head(const LinearAttentionHead<T>& head, const Segments& segments, Arena<T> arena,
                  T* o, T* S, T* kept) {
  const int64_t K = head.K, V = head.V, capacity = segments.capacity;
  T* out = arena.take(capacity * V);
  Chunk<T> chunk(head, capacity, arena);
  for (int64_t begin = 0; begin < head.steps; begin += capacity) {
    keep_state(segments, begin, K * V, S, kept);
    chunk.load(head, begin, std::min(head.steps, begin + capacity));
    chunk.expect(head, begin + capacity, 4);
    const int64_t C = chunk.C;
    const T* q = chunk.keys.decayed_from_start(C, chunk.q, chunk.keys.rows);
    chunk.ahead.fetch();
    small_product(C, V, K, View<T>{q, K}, S, V, out, V);
    chunk.values.decayed_from_start(C, out, out);
    chunk.ahead.fetch();
    scores(C, chunk.q, chunk.k, chunk.keys, chunk.W);
    chunk.ahead.fetch();
    mix(C, chunk.W, chunk.u, chunk.values, out);
    chunk.ahead.fetch();
    chunk.advance(S);
    for (int64_t t = 0; t < C; ++t) stream(out + t * V, V, o + (begin + t) * head.v_pitch);
  }
}

}  // namespace

void linear_attention(const LinearAttentionArgs& args, LinearAttentionResult& result) {
  for_float_type(args.q.dtype(), "linear_attention", [&](auto tag) {
    using T = decltype(tag);
    const int64_t steps = args.q.dim(1), H = args.q.dim(2), heads = args.q.dim(0) * H;
    const int64_t K = args.q.dim(3), V = args.u.dim(3), capacity = chunk_size(args.chunk, steps);
    const int64_t size = Chunk<T>::scratch(K, V, capacity) + 2 * capacity * V;
    Tensor scratch = Tensor::empty({threads(), size}, dtype_of<T>);
    const Segments segments(K, V, steps, capacity);
    if (args.keep) make_room(segments, heads, result.state, result.kept);
    T* kept = args.keep ? result.kept.data<T>() : nullptr;
    T *buffers = scratch.data<T>(), *o = result.o.data<T>(), *states = result.state.data<T>();
    parallel_for(heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const LinearAttentionHead<T> head(args, n);
        T* S = states + n * K * V;
        if (head.state != nullptr) {
          std::copy_n(head.state, K * V, S);
        } else {
          std::fill_n(S, K * V, T(0));
        }
        forward_head(head, segments, Arena<T>{buffers + thread_index() * size},
                     o + (n / H * steps * H + n % H) * V, S,
                     kept ? kept + n * segments.count() * K * V : nullptr);
      }
      streamed();
    });
  });
}

void linear_attention_step(const LinearAttentionArgs& args, Tensor o) {
  for_float_type(args.q.dtype(), "linear_attention_step", [&](auto tag) {
    using T = decltype(tag);
    const int64_t heads = args.q.dim(0) * args.q.dim(2), K = args.q.dim(3), V = args.u.dim(3);
    Tensor state = args.state;
    Tensor scratch = Tensor::empty({threads(), K + V}, dtype_of<T>);
    T *S = state.data<T>(), *out = o.data<T>(), *buffers = scratch.data<T>();
    parallel_for(heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const LinearAttentionHead<T> head(args, n);
        T *a = buffers + thread_index() * (K + V), *b = a + K;
        const T scalar = head.resets(0) ? T(0) : math::exp(head.log_s ? *head.log_s : T(0));
        for (int64_t i = 0; i < K; ++i)
          a[i] = scalar * (head.log_a ? math::exp(head.log_a[i]) : T(1));
        for (int64_t j = 0; j < V; ++j) b[j] = head.log_b ? math::exp(head.log_b[j]) : T(1);
        recurrence::linear_attention_step(K, V, head.q, head.k, head.u, a, b, S + n * K * V,
                                          out + n * V);
      }
    });
  });
}

}  // namespace regla::cpu
