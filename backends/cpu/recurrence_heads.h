#pragma once

#include "backends/cpu/chunk_states.h"
#include "backends/cpu/rows.h"
#include "backends/kernels.h"
#include "core/parallel.h"

// What the recurrences share: where the rows of a head lie, and the loops over heads, which are
// independent of each other.
namespace regla::cpu {

/// One head of one sequence. Rows of q and k are `k_pitch` apart, those of the values and of o
/// `v_pitch`, scalars `s_pitch`. Absent resets and states are null.
template <class T>
struct RecurrenceHead {
  int64_t steps, K, V, k_pitch, v_pitch, s_pitch;
  int64_t row;  // the head's first, of all [B, T, H]
  HeadRows<T> q, k;
  const int32_t* reset;
  const T* state;

  template <class Args>
  RecurrenceHead(const Args& args, const Tensor& values, int64_t n)
      : steps(args.q.dim(1)), K(args.q.dim(3)), V(values.dim(3)) {
    const int64_t H = args.q.dim(2), b = n / H;
    k_pitch = H * K;
    v_pitch = H * V;
    s_pitch = H;
    row = b * steps * H + n % H;
    q = HeadRows<T>(args.q, row, K, k_pitch);
    k = HeadRows<T>(args.k, row, K, k_pitch);
    reset = args.reset ? args.reset.template data<int32_t>() + b * steps : nullptr;
    state = args.state ? args.state.template data<T>() + n * K * V : nullptr;
  }

  bool resets(int64_t t) const { return reset != nullptr && reset[t] != 0; }
};

/// How many heads there are, and how each is cut into chunks.
struct HeadSizes {
  int64_t heads, K, V, capacity;  // of a chunk
  Segments segments;

  template <class Args>
  HeadSizes(const Args& args, const Tensor& values)
      : heads(values.dim(0) * values.dim(2)),
        K(args.q.dim(3)),
        V(values.dim(3)),
        capacity(chunk_size(args.chunk, values.dim(1))),
        segments(K, V, values.dim(1), capacity) {}
};

/// Calls forward(head, segments, arena, o, S, kept) for each head: `o` its rows of the result, S
/// [K, V] its state before the first token, to become that after the last, `kept` the room for the
/// states that backward starts from, or null. `scratch`: elements of the arena.
template <class T, class Head, class Args, class Forward>
void forward_heads(const Args& args, const HeadSizes& n, int64_t scratch, RecurrenceResult& result,
                   Forward&& forward) {
  const int64_t size = n.K * n.V;
  Tensor scratches = Tensor::empty({threads(), scratch}, dtype_of<T>);
  if (args.keep && !result.kept)
    result.kept = kept_states<T>(n.segments, n.heads, n.K, n.V, result.o.device());
  T* kept = args.keep ? result.kept.data<T>() : nullptr;
  T *buffers = scratches.data<T>(), *states = result.state.data<T>();
  parallel_for(n.heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Head head(args, i);
      T* S = states + i * size;
      if (head.state != nullptr) {
        std::copy_n(head.state, size, S);
      } else {
        std::fill_n(S, size, T(0));
      }
      forward(head, n.segments, Arena<T>{buffers + thread_index() * scratch},
              Rows<T>(Sink{result.o}, head.row, n.V, head.v_pitch), S,
              kept ? kept + i * n.segments.count() * size : nullptr);
    }
    streamed();
  });
}

/// Calls backward(head, kept, last, arena, d_S) for each head: the states that forward kept, the
/// one after the last token, and the gradient of that, to become the gradient of the first.
template <class T, class Head, class Args, class Gradients, class Backward>
void backward_heads(const Args& args, const HeadSizes& n, int64_t scratch,
                    const RecurrenceResult& forward, const Gradients& to, Backward&& backward) {
  const int64_t size = n.K * n.V;
  Tensor scratches = Tensor::empty({threads(), scratch}, dtype_of<T>);
  Tensor d_states =
      to.d_state ? to.d_state.clone() : Tensor::zeros({n.heads, n.K, n.V}, dtype_of<T>);
  const T *kept = forward.kept.data<T>(), *last = forward.state.data<T>();
  T *buffers = scratches.data<T>(), *d_S = d_states.data<T>();
  parallel_for(n.heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Head head(args, i);
      backward(head, kept + i * n.segments.count() * size, last + i * size,
               Arena<T>{buffers + thread_index() * scratch}, d_S + i * size);
      Rows<T>(to.d_state0, i, size, 0).put(0, d_S + i * size, size);
    }
    streamed();
  });
}

}  // namespace regla::cpu
