#include "core/recurrences/linear_attention.h"

#include "backends/cpu/cells.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/linear_attention_head.h"

namespace regla::cpu {
namespace {

/// The chunked form of one head: o and the last state, S [K, V] being updated in place. `kept`
/// takes the states that backward starts from.
template <class T>
void forward_head(const LinearAttentionHead<T>& head, const Segments& segments, Arena<T> arena,
                  const Rows<T>& o, T* S, T* kept) {
  const int64_t K = head.K, V = head.V, capacity = segments.capacity;
  T* out = arena.take(capacity * V);
  Chunk<T> chunk(head, capacity, arena);
  for (int64_t begin = 0; begin < head.steps; begin += capacity) {
    keep_state(segments, begin, K * V, S, kept);
    chunk.load(head, begin, std::min(head.steps, begin + capacity));
    chunk.expect(head, begin + capacity, 4);
    scores(chunk.C, chunk.q, chunk.k, chunk.keys, chunk.W);
    chunk.ahead.fetch();
    outputs(chunk, S, out);
    chunk.advance(S);
    for (int64_t t = 0; t < chunk.C; ++t) o.put(begin + t, out + t * V, V);
  }
}

}  // namespace

void linear_attention(const LinearAttentionArgs& args, RecurrenceResult& result) {
  for_sums_of(args.q, "linear_attention", [&](auto tag) {
    using T = decltype(tag);
    const HeadSizes n(args, result.o);
    const int64_t scratch = Chunk<T>::scratch(n.K, n.V, n.capacity) + n.capacity * n.V;
    forward_heads<T, LinearAttentionHead<T>>(args, n, scratch, result, forward_head<T>);
  });
}

void linear_attention_step(const LinearAttentionArgs& args, Tensor o) {
  RecurrenceResult result = {o, args.state, {}};
  run_cell<recurrence::LinearAttention>(cell_args(args), result);
}

}  // namespace regla::cpu
