#pragma once

#include <algorithm>
#include <vector>

#include "autograd/ops/op.h"
#include "tests/layers/toy/moving_average.h"

// The recurrence as an op over whole tensors, and the kernels that loop over its heads: entries of
// the table in the library ("A new op" in CONTRIBUTING.md). A mixer of the library computes a chunk
// of tokens at a time; the toy walks.
namespace regla::test {

struct MovingAverageArgs {
  Tensor v;      // [B, T, H, V]
  Tensor a;      // [H]
  Tensor reset;  // [B, T] I32 or undefined
  Tensor state;  // [B, H, 1, V]

  /// Calls `f(b, h, n, a_h)` for every head, n its number among all.
  template <class T, class F>
  void for_heads(F&& f) const {
    for (int64_t n = 0; n < v.dim(0) * v.dim(2); ++n) {
      f(n / v.dim(2), n % v.dim(2), n, a.data<T>()[n % v.dim(2)]);
    }
  }
  bool resets(int64_t b, int64_t t) const {
    return reset && reset.data<int32_t>()[b * v.dim(1) + t] != 0;
  }
};

/// o like v; `end` is the state after the last token and begins as a copy of args.state.
inline void moving_average_forward(const MovingAverageArgs& args, Tensor o, Tensor end) {
  for_float_type(args.v.dtype(), "moving_average", [&](auto tag) {
    using T = decltype(tag);
    const int64_t steps = args.v.dim(1), H = args.v.dim(2), V = args.v.dim(3);
    args.for_heads<T>([&](int64_t b, int64_t h, int64_t n, T decay) {
      T* m = end.data<T>() + n * V;
      for (int64_t t = 0; t < steps; ++t) {
        const int64_t row = ((b * steps + t) * H + h) * V;
        if (args.resets(b, t)) std::fill_n(m, V, T(0));
        recurrence::moving_average_step(V, decay, args.v.data<T>() + row, m);
        std::copy_n(m, V, o.data<T>() + row);
      }
    });
  });
}

/// Adds to d_v and d_a; d_m comes in as the gradient of the last state and leaves as that of the
/// first.
inline void moving_average_backward(const MovingAverageArgs& args, const Tensor& o,
                                    const Tensor& d_o, Tensor d_v, Tensor d_a, Tensor d_m) {
  for_float_type(args.v.dtype(), "moving_average", [&](auto tag) {
    using T = decltype(tag);
    const int64_t steps = args.v.dim(1), H = args.v.dim(2), V = args.v.dim(3);
    const std::vector<T> zeros(static_cast<size_t>(V));
    args.for_heads<T>([&](int64_t b, int64_t h, int64_t n, T decay) {
      T* d = d_m.data<T>() + n * V;
      for (int64_t t = steps - 1; t >= 0; --t) {
        const int64_t row = ((b * steps + t) * H + h) * V;
        const T* before = args.resets(b, t) ? zeros.data()
                          : t > 0           ? o.data<T>() + row - H * V
                                            : args.state.data<T>() + n * V;
        for (int64_t j = 0; j < V && d_o; ++j) d[j] += d_o.data<T>()[row + j];
        recurrence::moving_average_step_backward(V, decay, args.v.data<T>() + row, before, d,
                                                 d_v.data<T>() + row, d_a.data<T>()[h]);
        if (args.resets(b, t)) std::fill_n(d, V, T(0));
      }
    });
  });
}

constexpr Kernel<"moving_average", "A A I A A A",
                 void(const MovingAverageArgs&, Tensor o, Tensor end)>
    kMovingAverage = &moving_average_forward;
constexpr Kernel<"moving_average_backward", "A A I A A A A A A",
                 void(const MovingAverageArgs&, const Tensor& o, const Tensor& d_o, Tensor d_v,
                      Tensor d_a, Tensor d_m)>
    kMovingAverageBackward = &moving_average_backward;

/// v [B, T, H, V], a [H], state [B, H, 1, V] -> o [B, T, H, V] and the last state.
struct MovingAverageOp : Op {
  MovingAverageArgs args;
  Tensor o;
  explicit MovingAverageOp(const Tensor& mask) { args.reset = mask; }
  const char* name() const override { return "moving_average"; }

  Tensors forward(const Tensors& in) override {
    args.v = in[0];
    args.a = in[1];
    args.state = in[2];
    o = Tensor::empty_like(args.v);
    const Tensor end = args.state.clone();
    kMovingAverage(args, o, end);
    return {o, end};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    const Tensor d_v = Tensor::zeros_like(args.v), d_a = Tensor::zeros_like(args.a);
    const Tensor d_m = d_out[1] ? d_out[1].clone() : Tensor::zeros_like(args.state);
    kMovingAverageBackward(args, o, d_out[0], d_v, d_a, d_m);
    d_in[0]->give(d_v);
    d_in[1]->give(d_a);
    d_in[2]->give(d_m);
  }
};

struct MovingAverage {
  Var o;      // [B, T, H, V]
  Var state;  // [B, H, 1, V]
};
inline MovingAverage moving_average(const Var& v, const Var& a, const Tensor& reset,
                                    const Var& state) {
  const Vars out = apply(MovingAverageOp(reset), {v, a, state});
  return {out[0], out[1]};
}

}  // namespace regla::test
