#include <algorithm>
#include <cstring>
#include <limits>

#include "backends/cpu/gemm.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/rows.h"
#include "backends/cpu/triangular.h"
#include "backends/cpu/vector_math.h"
#include "backends/step.h"
#include "core/parallel.h"

// Causal softmax attention (Eq. 1) by blocks of queries: the scores of one block against the keys
// it may see are the only quadratic thing held, once per thread.
namespace regla::cpu {
namespace {

constexpr int64_t kQueries = 64;

/// One head of one sequence.
template <class T>
struct Head {
  int64_t steps, length, K, V, k_pitch, v_pitch, s_pitch, window;
  const T *q, *k, *v;
  const int32_t* first;  // [T] or null
  T scale;
  bool is_narrow;                                            // stored in BF16
  int64_t q_offset, k_offset, v_offset, o_offset, s_offset;  // of the head in each tensor

  Head(const SoftmaxAttentionArgs& args, int64_t n)
      : steps(args.q.dim(1)), length(args.k.dim(1)), K(args.q.dim(3)), V(args.v.dim(3)) {
    const int64_t H = args.q.dim(2), b = n / H, h = n % H, capacity = args.k.dim(1);
    k_pitch = H * K;
    v_pitch = H * V;
    s_pitch = H;
    window = args.window;
    s_offset = b * steps * H + h;
    q_offset = s_offset * K;
    o_offset = s_offset * V;
    k_offset = (b * capacity * H + h) * K;
    v_offset = (b * capacity * H + h) * V;
    first = args.first ? args.first.data<int32_t>() + b * steps : nullptr;
    scale = static_cast<T>(args.scale);
    is_narrow = args.q.dtype() == DType::BF16;
    if (is_narrow) return;
    q = args.q.data<T>() + q_offset;
    k = args.k.data<T>() + k_offset;
    v = args.v.data<T>() + v_offset;
  }

  /// Elements of the arena that `widen` takes.
  static int64_t widened(const SoftmaxAttentionArgs& args) {
    if (args.q.dtype() != DType::BF16) return 0;
    const int64_t K = args.q.dim(3), V = args.v.dim(3);
    return args.q.dim(1) * K + args.k.dim(1) * (K + V);
  }
  /// Copies the rows of the head, where they are in BF16, into an arena and has them read there.
  void widen(const SoftmaxAttentionArgs& args, Arena<T>& arena) {
    if (!is_narrow) return;
    q = loaded(HeadRows<T>(args.q, s_offset, K, k_pitch), steps, arena);
    k = loaded(HeadRows<T>(args.k, k_offset / K, K, k_pitch), length, arena);
    v = loaded(HeadRows<T>(args.v, v_offset / V, V, v_pitch), length, arena);
    k_pitch = K;
    v_pitch = V;
  }
  static const T* loaded(const HeadRows<T>& rows, int64_t count, Arena<T>& arena) {
    T* to = arena.take(count * rows.size());
    rows.load(0, count, to);
    return to;
  }

  /// Keys [begin, end) are what query t sees.
  int64_t end(int64_t t) const { return length - steps + t + 1; }
  int64_t begin(int64_t t) const {
    int64_t lowest = window > 0 ? std::max<int64_t>(0, end(t) - window) : 0;
    return first ? std::max<int64_t>(lowest, first[t]) : lowest;
  }
  /// Keys that some query of [t0, t1) sees start here: both bounds grow with t.
  int64_t block_begin(int64_t t0, int64_t t1) const {
    int64_t lowest = end(t0);
    for (int64_t t = t0; t < t1; ++t) lowest = std::min(lowest, begin(t));
    return lowest;
  }
};

/// Scores of queries [t0, t1) against keys [s0, s1), scaled: P[t1 - t0, s1 - s0].
template <class T>
void block_scores(const Head<T>& head, int64_t t0, int64_t t1, int64_t s0, int64_t s1, T* P) {
  gemm(false, true, t1 - t0, s1 - s0, head.K, head.scale, head.q + t0 * head.k_pitch, head.k_pitch,
       head.k + s0 * head.k_pitch, head.k_pitch, T(0), P, s1 - s0);
}

/// Turns a row of scores into exp(score - shift) where key s is seen, 0 elsewhere.
template <class T>
void exponentiate(const Head<T>& head, int64_t t, int64_t s0, int64_t s1, T shift, T* row) {
  const int64_t from = head.begin(t) - s0, to = head.end(t) - s0;
  std::fill_n(row, from, T(0));
#pragma omp simd
  for (int64_t s = from; s < to; ++s) row[s] = math::exp(row[s] - shift);
  std::fill(row + to, row + (s1 - s0), T(0));
}

template <class T>
void forward_block(const Head<T>& head, int64_t t0, int64_t t1, T* P, T* o, T* log_sum) {
  const int64_t s0 = head.block_begin(t0, t1), s1 = head.end(t1 - 1), width = s1 - s0;
  block_scores(head, t0, t1, s0, s1, P);
  for (int64_t t = t0; t < t1; ++t) {
    T* row = P + (t - t0) * width;
    const int64_t from = head.begin(t) - s0, to = head.end(t) - s0;
    const T largest = max_of(row[from], row + from, to - from);
    T sum = 0;
    exponentiate(head, t, s0, s1, largest, row);
#pragma omp simd reduction(+ : sum)
    for (int64_t s = from; s < to; ++s) sum += row[s];
    const T inverse = 1 / sum;
    for (int64_t s = from; s < to; ++s) row[s] *= inverse;
    log_sum[t * head.s_pitch] = largest + math::log(sum);
  }
  gemm(false, false, t1 - t0, head.V, width, T(1), P, width, head.v + s0 * head.v_pitch,
       head.v_pitch, T(0), o + t0 * head.v_pitch, head.v_pitch);
}

/// Pointers to one head's gradients; null where nobody wants one.
template <class T>
struct HeadGradients {
  const T *o = nullptr, *d_o = nullptr, *log_sum = nullptr;
  T *d_q = nullptr, *d_k = nullptr, *d_v = nullptr;
};

// P = softmax(scores), D_t = o_t . d_o_t:   d_v += P^T d_o,   dS = P * (d_o v^T - D) * scale,
// d_q += dS k,   d_k += dS^T q
template <class T>
void backward_block(const Head<T>& head, int64_t t0, int64_t t1, T* P, T* dP,
                    const HeadGradients<T>& g) {
  const int64_t s0 = head.block_begin(t0, t1), s1 = head.end(t1 - 1), width = s1 - s0;
  const int64_t rows = t1 - t0;
  const T* d_o = g.d_o + t0 * head.v_pitch;
  block_scores(head, t0, t1, s0, s1, P);
  for (int64_t t = t0; t < t1; ++t) {
    exponentiate(head, t, s0, s1, g.log_sum[t * head.s_pitch], P + (t - t0) * width);
  }
  if (g.d_v) {
    gemm(true, false, width, head.V, rows, T(1), P, width, d_o, head.v_pitch, T(1),
         g.d_v + s0 * head.v_pitch, head.v_pitch);
  }
  gemm(false, true, rows, width, head.V, T(1), d_o, head.v_pitch, head.v + s0 * head.v_pitch,
       head.v_pitch, T(0), dP, width);
  for (int64_t t = t0; t < t1; ++t) {
    const T *o = g.o + t * head.v_pitch, *d = g.d_o + t * head.v_pitch;
    T dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t j = 0; j < head.V; ++j) dot += o[j] * d[j];
    const T* p = P + (t - t0) * width;
    T* dp = dP + (t - t0) * width;
#pragma omp simd
    for (int64_t s = 0; s < width; ++s) dp[s] = p[s] * (dp[s] - dot);
  }
  if (g.d_q) {
    gemm(false, false, rows, head.K, width, head.scale, dP, width, head.k + s0 * head.k_pitch,
         head.k_pitch, T(1), g.d_q + t0 * head.k_pitch, head.k_pitch);
  }
  if (g.d_k) {
    gemm(true, false, width, head.K, rows, head.scale, dP, width, head.q + t0 * head.k_pitch,
         head.k_pitch, T(1), g.d_k + s0 * head.k_pitch, head.k_pitch);
  }
}

template <class T>
T* prepared(Sink sink) {
  if (!sink) return nullptr;
  if (!sink.accumulate) sink.tensor.fill(0);
  return sink.tensor.data<T>();
}

/// Every query sees at least its own key.
void check_visible(const SoftmaxAttentionArgs& args) {
  if (!args.first) return;
  const int64_t steps = args.first.dim(1), past = args.k.dim(1) - steps;
  const int32_t* entry = args.first.data<int32_t>();
  for (int64_t i = 0; i < args.first.numel(); ++i) {
    check(entry[i] <= past + i % steps, "[softmax_attention] expected a first key of at most ",
          past + i % steps, " for query ", i % steps, ", got ", entry[i]);
  }
}

}  // namespace

void softmax_attention(const SoftmaxAttentionArgs& args, Tensor o, Tensor log_sum) {
  check_visible(args);
  for_sums_of(args.q, "softmax_attention", [&](auto tag) {
    using T = decltype(tag);
    const int64_t heads = args.q.dim(0) * args.q.dim(2), steps = args.q.dim(1);
    const int64_t V = args.v.dim(3), widened = Head<T>::widened(args);
    const int64_t scores = std::min(kQueries, steps) * args.k.dim(1);
    const int64_t size = scores + (widened > 0 ? widened + steps * V : 0);
    Tensor scratch = Tensor::empty({threads(), size}, dtype_of<T>);
    T *buffers = scratch.data<T>(), *sums = log_sum.data<T>();
    T* out = widened > 0 ? nullptr : o.data<T>();
    parallel_for(heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        Arena<T> arena = {buffers + thread_index() * size};
        Head<T> head(args, n);
        const Rows<T> rows(Sink{o}, head.s_offset, V, head.v_pitch);
        head.widen(args, arena);
        T* to = head.is_narrow ? arena.take(steps * V) : out + head.o_offset;
        T* P = arena.take(scores);
        for (int64_t t = 0; t < steps; t += kQueries) {
          forward_block(head, t, std::min(steps, t + kQueries), P, to, sums + head.s_offset);
        }
        if (!head.is_narrow) continue;
        for (int64_t t = 0; t < steps; ++t) rows.put(t, to + t * V, V);
      }
      streamed();
    });
  });
}

namespace {

/// Gradients of a head in BF16 are summed in an arena; `finish` writes them.
template <class T>
struct WidenedGradients {
  Rows<T> d_q, d_k, d_v;  // of the tensors
  HeadGradients<T> sums;

  static int64_t size(const SoftmaxAttentionArgs& args) {
    const int64_t V = args.v.dim(3);
    return Head<T>::widened(args) > 0 ? Head<T>::widened(args) + 2 * args.q.dim(1) * V : 0;
  }
  /// Before `head` is widened.
  WidenedGradients(const Head<T>& head, const Sink& q, const Sink& k, const Sink& v)
      : d_q(q, head.s_offset, head.K, head.k_pitch),
        d_k(k, head.k_offset / head.K, head.K, head.k_pitch),
        d_v(v, head.v_offset / head.V, head.V, head.v_pitch) {}

  void start(const Head<T>& head, const HeadRows<T>& o, const HeadRows<T>& d_o, const T* log_sum,
             Arena<T>& arena) {
    const auto zeros = [&](const Rows<T>& wanted, int64_t count) {
      T* to = arena.take(count);
      std::fill_n(to, count, T(0));
      return wanted ? to : nullptr;
    };
    sums = {.o = Head<T>::loaded(o, head.steps, arena),
            .d_o = Head<T>::loaded(d_o, head.steps, arena),
            .log_sum = log_sum,
            .d_q = zeros(d_q, head.steps * head.K),
            .d_k = zeros(d_k, head.length * head.K),
            .d_v = zeros(d_v, head.length * head.V)};
  }
  void finish(const Head<T>& head) const {
    for (int64_t t = 0; t < head.steps; ++t) d_q.put(t, sums.d_q + t * head.K, head.K);
    for (int64_t s = 0; s < head.length; ++s) {
      d_k.put(s, sums.d_k + s * head.K, head.K);
      d_v.put(s, sums.d_v + s * head.V, head.V);
    }
  }
};

}  // namespace

void softmax_attention_backward(const SoftmaxAttentionArgs& args, const Tensor& o,
                                const Tensor& log_sum, const Tensor& d_o, Sink d_q, Sink d_k,
                                Sink d_v) {
  for_sums_of(args.q, "softmax_attention", [&](auto tag) {
    using T = decltype(tag);
    const int64_t heads = args.q.dim(0) * args.q.dim(2), steps = args.q.dim(1);
    const int64_t scores = std::min(kQueries, steps) * args.k.dim(1);
    const bool is_narrow = args.q.dtype() == DType::BF16;
    const int64_t size = 2 * scores + Head<T>::widened(args) + WidenedGradients<T>::size(args);
    Tensor scratch = Tensor::empty({threads(), size}, dtype_of<T>);
    T* buffers = scratch.data<T>();
    T *to_q = is_narrow ? nullptr : prepared<T>(d_q),
      *to_k = is_narrow ? nullptr : prepared<T>(d_k);
    T* to_v = is_narrow ? nullptr : prepared<T>(d_v);
    parallel_for(heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        Arena<T> arena = {buffers + thread_index() * size};
        Head<T> head(args, n);
        const T* sums = log_sum.data<T>() + head.s_offset;
        WidenedGradients<T> widened(head, d_q, d_k, d_v);
        HeadGradients<T> gradients;
        if (is_narrow) {
          const HeadRows<T> o_rows(o, head.s_offset, head.V, head.v_pitch);
          const HeadRows<T> d_o_rows(d_o, head.s_offset, head.V, head.v_pitch);
          head.widen(args, arena);
          widened.start(head, o_rows, d_o_rows, sums, arena);
          gradients = widened.sums;
        } else {
          gradients = {.o = o.data<T>() + head.o_offset,
                       .d_o = d_o.data<T>() + head.o_offset,
                       .log_sum = sums,
                       .d_q = to_q ? to_q + head.q_offset : nullptr,
                       .d_k = to_k ? to_k + head.k_offset : nullptr,
                       .d_v = to_v ? to_v + head.v_offset : nullptr};
        }
        T *P = arena.take(scores), *dP = arena.take(scores);
        for (int64_t t = 0; t < steps; t += kQueries) {
          backward_block(head, t, std::min(steps, t + kQueries), P, dP, gradients);
        }
        if (is_narrow) widened.finish(head);
      }
      streamed();
    });
  });
}

namespace {

/// Copies a row of elements to where element `at` of another tensor of the same type lies.
void copy_row(const Tensor& from, int64_t first, int64_t count, Tensor& to, int64_t at) {
  const auto bytes = static_cast<int64_t>(size_of(from.dtype()));
  std::memcpy(static_cast<char*>(to.raw()) + at * bytes,
              static_cast<const char*>(from.raw()) + first * bytes,
              static_cast<size_t>(count * bytes));
}

}  // namespace

void softmax_attention_step(const SoftmaxAttentionStepArgs& args, Tensor o) {
  if (args.rotation.turns()) return softmax_attention_step(turned(args), o);
  Tensor used = args.used;
  const int32_t entry = used.data<int32_t>()[0];
  check(entry >= 0 && entry < args.keys.dim(1), "[softmax_attention_step] expected fewer than ",
        args.keys.dim(1), " entries in use, got ", entry);
  for_sums_of(args.q, "softmax_attention_step", [&](auto tag) {
    using T = decltype(tag);
    const SoftmaxAttentionArgs cache = {args.q, args.keys,   args.values,
                                        {},     args.window, args.scale};
    const int64_t H = args.q.dim(2), heads = args.q.dim(0) * H, V = args.v.dim(3);
    const int64_t size = entry + 1 + V + Head<T>::widened(cache);
    Tensor scratch = Tensor::empty({threads(), size}, dtype_of<T>);
    Tensor keys = args.keys, values = args.values;
    T* buffers = scratch.data<T>();
    const Output<T> out(o);
    const int32_t* positions = args.rotation.positions.data<int32_t>();
    parallel_for(heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        Arena<T> arena = {buffers + thread_index() * size};
        Head<T> head(cache, n);
        const int32_t first = std::max(0, entry - positions[n / H]);
        head.length = entry + 1;
        head.first = &first;
        copy_row(args.k, n * head.K, head.K, keys, head.k_offset + entry * head.k_pitch);
        copy_row(args.v, n * V, V, values, head.v_offset + entry * head.v_pitch);
        head.widen(cache, arena);
        T *P = arena.take(entry + 1), *row = arena.take(V), log_sum;
        forward_block(head, 0, 1, P, row, &log_sum);
        out.write(head.o_offset, V, [=](int64_t j) { return row[j]; });
      }
    });
  });
  used.data<int32_t>()[0] = entry + 1;
}

}  // namespace regla::cpu
