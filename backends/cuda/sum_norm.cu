#include "backends/cuda/kernels.h"
#include "backends/cuda/rows.cuh"

// The sum norm (Eq. 2, 5): the normaliser c_t q_t is one more value column of the recurrence, whose
// written value is 1; the other columns are divided by it.
//   denominator(x) = max(x, 1e-6)                 non-negative features
//                    sign(x) max(|x|, 1)          features that change sign (Peng et al. 2021)
// Rows of V + 1 elements do not begin where several may be loaded at once.
namespace regla::cuda {
namespace {

/// The denominator, and whether it moves with x or sits at its bound. NaN is below no bound.
template <class S>
struct Denominator {
  S value;
  bool moves;

  __device__ Denominator(S x, bool changes_sign) : value(x), moves(true) {
    if (!changes_sign && x <= S(1e-6)) {
      value = S(1e-6);
      moves = false;
    } else if (changes_sign && x > -1 && x < 1) {
      value = x < 0 ? S(-1) : S(1);
      moves = false;
    }
  }
};

template <class S>
struct AppendOneRow {
  int64_t V;
  Elements<S> v;
  Result<S> y;
  __device__ void operator()(const Team& team, int64_t row) const {
    team.each<1>(V + 1,
                 [&](int64_t j) { y.put(row * (V + 1) + j, j < V ? v[row * V + j] : S(1)); });
  }
};

template <class S>
struct AppendOneBackwardRow {
  int64_t V;
  Elements<S> d_y;
  Result<S> d_v;
  __device__ void operator()(const Team& team, int64_t row) const {
    team.each<1>(V, [&](int64_t j) { d_v.put(row * V + j, d_y[row * (V + 1) + j]); });
  }
};

template <class S>
struct SumNormRow {
  int64_t V;
  bool changes_sign;
  Elements<S> o;
  Result<S> y;
  __device__ void operator()(const Team& team, int64_t row) const {
    if (!team.is_active) return;  // nothing is summed here
    const S factor = 1 / Denominator<S>(o[row * (V + 1) + V], changes_sign).value;
    team.each<1>(V, [&](int64_t j) { y.put(row * V + j, o[row * (V + 1) + j] * factor); });
  }
};

// y = o / x:  d_o = d_y / x,  d_x = -sum(d_y y) / x where the denominator is x itself
template <class S>
struct SumNormBackwardRow {
  int64_t V;
  bool changes_sign;
  Elements<S> o, y, d_y;
  Result<S> d_o;
  __device__ void operator()(const Team& team, int64_t row) const {
    const int64_t first = row * (V + 1);
    const Denominator<S> x(team.is_active ? o[first + V] : S(1), changes_sign);
    const S factor = 1 / x.value;
    S dot = 0;
    team.each<1>(V, [&](int64_t j) {
      const S d = d_y[row * V + j];
      dot += d * y[row * V + j];
      d_o.put(first + j, d * factor);
    });
    dot = team.sum(dot);
    if (team.leads()) d_o.put(first + V, x.moves ? -dot * factor : S(0));
  }
};

}  // namespace

void append_one(const Tensor& v, Tensor y) {
  for_sum_type(v.dtype(), "append_one", [&](auto tag) {
    using S = decltype(tag);
    const int64_t V = v.dim(-1), R = v.numel() / V;
    for_each_row<1>(context(y), R, V, AppendOneRow<S>{V, Elements<S>(v), Result<S>(y)});
  });
}

void append_one_backward(const Tensor& d_y, Sink d_v) {
  if (!d_v) return;
  for_sum_type(d_y.dtype(), "append_one", [&](auto tag) {
    using S = decltype(tag);
    const int64_t V = d_y.dim(-1) - 1, R = d_y.numel() / (V + 1);
    for_each_row<1>(context(d_y), R, V,
                    AppendOneBackwardRow<S>{V, Elements<S>(d_y), Result<S>(d_v)});
  });
}

void sum_norm(const Tensor& o, bool changes_sign, Tensor y) {
  for_sum_type(o.dtype(), "sum_norm", [&](auto tag) {
    using S = decltype(tag);
    const int64_t V = o.dim(-1) - 1, R = o.numel() / (V + 1);
    for_each_row<1>(context(y), R, V, SumNormRow<S>{V, changes_sign, Elements<S>(o), Result<S>(y)});
  });
}

void sum_norm_backward(const Tensor& o, bool changes_sign, const Tensor& y, const Tensor& d_y,
                       Sink d_o) {
  if (!d_o) return;
  for_sum_type(o.dtype(), "sum_norm", [&](auto tag) {
    using S = decltype(tag);
    const int64_t V = o.dim(-1) - 1, R = o.numel() / (V + 1);
    for_each_row<1>(context(o), R, V,
                    SumNormBackwardRow<S>{V, changes_sign, Elements<S>(o), Elements<S>(y),
                                          Elements<S>(d_y), Result<S>(d_o)});
  });
}

}  // namespace regla::cuda
