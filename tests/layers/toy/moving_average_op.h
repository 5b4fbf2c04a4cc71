#pragma once

#include "autograd/ops/op.h"
#include "tests/layers/toy/moving_average.h"

// The recurrence as an op over whole tensors. A mixer of the library has the loop over heads in a
// kernel ("A new op" in CONTRIBUTING.md) and computes a chunk of tokens at a time; the toy walks.
namespace regla::test {

/// v [B, T, H, V], a [H], state [B, H, 1, V] -> o [B, T, H, V] and the last state.
struct MovingAverageOp : Op {
  Tensor reset;  // [B, T] I32 or undefined
  Tensor v, a, state, o;
  explicit MovingAverageOp(Tensor mask) : reset(std::move(mask)) {}
  const char* name() const override { return "moving_average"; }

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

  Tensors forward(const Tensors& in) override {
    v = in[0];
    a = in[1];
    state = in[2];
    o = Tensor::empty_like(v);
    Tensor end = state.clone();
    for_float_type(v.dtype(), name(), [&](auto tag) {
      using T = decltype(tag);
      const int64_t steps = v.dim(1), H = v.dim(2), V = v.dim(3);
      for_heads<T>([&](int64_t b, int64_t h, int64_t n, T decay) {
        T* m = end.data<T>() + n * V;
        for (int64_t t = 0; t < steps; ++t) {
          const int64_t row = ((b * steps + t) * H + h) * V;
          if (resets(b, t)) std::fill_n(m, V, T(0));
          recurrence::moving_average_step(V, decay, v.data<T>() + row, m);
          std::copy_n(m, V, o.data<T>() + row);
        }
      });
    });
    return {o, end};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    Tensor d_v = Tensor::zeros_like(v), d_a = Tensor::zeros_like(a);
    Tensor d_m = d_out[1] ? d_out[1].clone() : Tensor::zeros_like(state);
    for_float_type(v.dtype(), name(), [&](auto tag) {
      using T = decltype(tag);
      const int64_t steps = v.dim(1), H = v.dim(2), V = v.dim(3);
      const Tensor zeros = Tensor::zeros({V}, v.dtype());
      for_heads<T>([&](int64_t b, int64_t h, int64_t n, T decay) {
        T* d = d_m.data<T>() + n * V;
        for (int64_t t = steps - 1; t >= 0; --t) {
          const int64_t row = ((b * steps + t) * H + h) * V;
          const T* before = resets(b, t) ? zeros.data<T>()
                            : t > 0      ? o.data<T>() + row - H * V
                                         : state.data<T>() + n * V;
          for (int64_t j = 0; j < V && d_out[0]; ++j) d[j] += d_out[0].data<T>()[row + j];
          recurrence::moving_average_step_backward(V, decay, v.data<T>() + row, before, d,
                                                   d_v.data<T>() + row, d_a.data<T>()[h]);
          if (resets(b, t)) std::fill_n(d, V, T(0));
        }
      });
    });
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
