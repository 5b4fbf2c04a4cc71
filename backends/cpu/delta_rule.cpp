#include "core/recurrences/delta_rule.h"

#include "backends/cpu/cells.h"
#include "backends/cpu/delta_rule_chunk.h"
#include "backends/cpu/kernels.h"

namespace regla::cpu {
namespace {

/// The chunked form of one head: o and the last state, S [K, V] being updated in place.
///     O = Q S + tril(Q K^T) U,   S += K^T U
/// `kept` takes the states that backward starts from.
template <class T>
void forward_head(const DeltaRuleHead<T>& head, const Segments& segments, Arena<T> arena,
                  const Rows<T>& o, T* S, T* kept) {
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
    for (int64_t t = 0; t < C; ++t) o.put(begin + t, out + t * V, V);
  }
}

}  // namespace

void delta_rule(const DeltaRuleArgs& args, RecurrenceResult& result) {
  for_sums_of(args.q, "delta_rule", [&](auto tag) {
    using T = decltype(tag);
    const HeadSizes n(args, result.o);
    const int64_t scratch =
        DeltaRuleChunk<T>::scratch(n.K, n.V, n.capacity) + n.capacity * (n.V + n.capacity);
    forward_heads<T, DeltaRuleHead<T>>(args, n, scratch, result, forward_head<T>);
  });
}

void delta_rule_step(const DeltaRuleArgs& args, Tensor o) {
  RecurrenceResult result = {o, args.state, {}};
  run_cell<recurrence::DeltaRule>(cell_args(args), result);
}

}  // namespace regla::cpu
