#include "core/recurrences/delta_rule.h"

#include "backends/cpu/chunk_states.h"
#include "backends/cpu/delta_rule_chunk.h"
#include "backends/cpu/kernels.h"
#include "core/parallel.h"

namespace regla::cpu {
namespace {

/// The chunked form of one head: o and the last state, S [K, V] being updated in place.
///     O = Q S + tril(Q K^T) U,   S += K^T U
/// `kept` takes the states that backward starts from.
template <class T>
void forward_head(const DeltaRuleHead<T>& head, const Segments& segments, Arena<T> arena, T* o,
                  T* S, T* kept) {
  const int64_t capacity = segments.capacity;
  const int64_t K = head.K, V = head.V;
  T* out = arena.take(capacity * V);
  T* W = arena.take(capacity * capacity);
  DeltaRuleChunk<T> chunk(K, V, capacity, arena);
  for (int64_t begin = 0; begin < head.steps; begin = chunk.first + chunk.C) {
    keep_state(segments, begin, K * V, S, kept);
    const int64_t full = std::min(head.steps, (begin / capacity + 1) * capacity);
    chunk.load(head, begin, head.piece_end(begin, full));
    const int64_t C = chunk.C;
    if (head.resets(begin)) std::fill_n(S, K * V, T(0));
    chunk.solve(S);
    lower_product(C, K, chunk.q, chunk.k_turned, W);
    small_product(C, V, K, View<T>{chunk.q, K}, S, V, out, V);
    multiply_lower(C, V, W, chunk.U, out);
    chunk.advance(S);
    copy_rows(C, V, out, V, o + begin * head.v_pitch, head.v_pitch);
  }
}

}  // namespace

void delta_rule(const DeltaRuleArgs& args, DeltaRuleResult& result) {
  for_float_type(args.q.dtype(), "delta_rule", [&](auto tag) {
    using T = decltype(tag);
    const int64_t steps = args.q.dim(1), H = args.q.dim(2), heads = args.q.dim(0) * H;
    const int64_t K = args.q.dim(3), V = args.v.dim(3), capacity = chunk_size(args.chunk, steps);
    const int64_t size = DeltaRuleChunk<T>::scratch(K, V, capacity) + capacity * (V + capacity);
    Tensor scratch = Tensor::empty({threads(), size}, dtype_of<T>);
    const Segments segments(K, V, steps, capacity);
    if (args.keep) make_room(segments, heads, result.state, result.kept);
    T* kept = args.keep ? result.kept.data<T>() : nullptr;
    T *buffers = scratch.data<T>(), *o = result.o.data<T>(), *states = result.state.data<T>();
    parallel_for(heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const DeltaRuleHead<T> head(args, n);
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

void delta_rule_step(const DeltaRuleArgs& args, Tensor o) {
  for_float_type(args.q.dtype(), "delta_rule_step", [&](auto tag) {
    using T = decltype(tag);
    const int64_t heads = args.q.dim(0) * args.q.dim(2), K = args.q.dim(3), V = args.v.dim(3);
    Tensor state = args.state;
    Tensor scratch = Tensor::empty({threads(), V}, dtype_of<T>);
    T *states = state.data<T>(), *out = o.data<T>(), *buffers = scratch.data<T>();
    parallel_for(heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const DeltaRuleHead<T> head(args, n);
        T* S = states + n * K * V;
        if (head.resets(0)) std::fill_n(S, K * V, T(0));
        recurrence::delta_rule_step(K, V, head.q, head.k, head.v, *head.g, S,
                                    buffers + thread_index() * V, out + n * V);
      }
    });
  });
}

}  // namespace regla::cpu
