#include <algorithm>

#include "backends/cpu/kernels.h"
#include "backends/cpu/loops.h"

// The sum norm (Eq. 2, 5): the normaliser c_t q_t is one more value column of the recurrence, whose
// written value is 1; the other columns are divided by it.
//   denominator(x) = max(x, 1e-6)                 non-negative features
//                    sign(x) max(|x|, 1)          features that change sign (Peng et al. 2021)
namespace regla::cpu {
namespace {

/// The denominator, and whether it moves with x or sits at its bound. NaN is below no bound.
template <class T>
struct Denominator {
  T value;
  bool moves;
};

template <class T>
Denominator<T> denominator(T x, bool changes_sign) {
  if (!changes_sign) return x <= T(1e-6) ? Denominator<T>{T(1e-6), false} : Denominator<T>{x, true};
  if (x > -1 && x < 1) return {x < 0 ? T(-1) : T(1), false};
  return {x, true};
}

}  // namespace

void append_one(const Tensor& v, Tensor y) {
  for_float_type(v.dtype(), "append_one", [&](auto tag) {
    using T = decltype(tag);
    const int64_t V = v.dim(-1), R = v.numel() / V;
    const T* in = v.data<T>();
    T* out = y.data<T>();
    parallel_for(R, row_grain(V), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        std::copy_n(in + r * V, V, out + r * (V + 1));
        out[r * (V + 1) + V] = 1;
      }
    });
  });
}

void append_one_backward(const Tensor& d_y, Sink d_v) {
  for_float_type(d_y.dtype(), "append_one", [&](auto tag) {
    using T = decltype(tag);
    const int64_t V = d_y.dim(-1) - 1, R = d_y.numel() / (V + 1);
    const T* d_out = d_y.data<T>();
    T* out = d_v.tensor.data<T>();
    parallel_for(R, row_grain(V), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* d = d_out + r * (V + 1);
        write_range(out + r * V, d_v.accumulate, 0, V, [=](int64_t j) { return d[j]; });
      }
    });
  });
}

void sum_norm(const Tensor& o, bool changes_sign, Tensor y) {
  for_float_type(o.dtype(), "sum_norm", [&](auto tag) {
    using T = decltype(tag);
    const int64_t V = o.dim(-1) - 1, R = o.numel() / (V + 1);
    const T* in = o.data<T>();
    T* out = y.data<T>();
    parallel_for(R, row_grain(V), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* row = in + r * (V + 1);
        const T factor = 1 / denominator(row[V], changes_sign).value;
        for (int64_t j = 0; j < V; ++j) out[r * V + j] = row[j] * factor;
      }
    });
  });
}

// y = o / x:  d_o = d_y / x,  d_x = -sum(d_y y) / x where the denominator is x itself
void sum_norm_backward(const Tensor& o, bool changes_sign, const Tensor& y, const Tensor& d_y,
                       Sink d_o) {
  for_float_type(o.dtype(), "sum_norm", [&](auto tag) {
    using T = decltype(tag);
    const int64_t V = o.dim(-1) - 1, R = o.numel() / (V + 1);
    const T *in = o.data<T>(), *results = y.data<T>(), *d_out = d_y.data<T>();
    T* out = d_o.tensor.data<T>();
    parallel_for(R, row_grain(V), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T *result = results + r * V, *d = d_out + r * V;
        const Denominator<T> x = denominator(in[r * (V + 1) + V], changes_sign);
        const T factor = 1 / x.value;
        T dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int64_t j = 0; j < V; ++j) dot += d[j] * result[j];
        T* row = out + r * (V + 1);
        write_range(row, d_o.accumulate, 0, V, [=](int64_t j) { return d[j] * factor; });
        const T d_x = x.moves ? -dot * factor : T(0);
        write_range(row + V, d_o.accumulate, 0, 1, [=](int64_t) { return d_x; });
      }
    });
  });
}

}  // namespace regla::cpu
