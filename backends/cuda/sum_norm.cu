#include "backends/cuda/kernels.h"
#include "backends/cuda/map.cuh"
#include "backends/cuda/rows.cuh"

// The sum norm (Eq. 2, 5): the normaliser c_t q_t is one more value column of the recurrence, whose
// written value is 1; the other columns are divided by it.
//   denominator(x) = max(x, 1e-6)                 non-negative features
//                    sign(x) max(|x|, 1)          features that change sign (Peng et al. 2021)
// Rows of V + 1 elements do not begin where several may be loaded at once, but what is written all
// together does.
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
struct AppendOne {
  int64_t V;
  Elements<S> v;
  __device__ S operator()(int64_t i) const {
    const int64_t row = quotient(i, V + 1);
    return i - row * (V + 1) < V ? v[i - row] : S(1);
  }
};

template <class S>
struct AppendOneBackward {
  int64_t V;
  Elements<S> d_y;
  __device__ S operator()(int64_t i) const { return d_y[i + quotient(i, V)]; }
};

template <class S>
struct SumNorm {
  int64_t V;
  bool changes_sign;
  Elements<S> o;
  __device__ S operator()(int64_t i) const {
    const int64_t row = quotient(i, V);
    return o[i + row] * (1 / Denominator<S>(o[row * (V + 1) + V], changes_sign).value);
  }
};

// y = o / x:  d_o = d_y / x,  d_x = -sum(d_y y) / x where the denominator is x itself
// Bytes: y, d_y and d_o once.
template <class S, int W>
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
    team.each<W>(V, [&](int64_t j) {
      S n[W], d[W];
      y.load(row * V + j, n);
      d_y.load(row * V + j, d);
      for (int w = 0; w < W; ++w) dot += d[w] * n[w];
      for (int w = 0; w < W; ++w) d_o.put(first + j + w, d[w] * factor);
    });
    dot = team.sum(dot);
    if (team.leads()) d_o.put(first + V, x.moves ? -dot * factor : S(0));
  }
};

}  // namespace

void append_one(const Tensor& v, Tensor y) {
  for_sum_type(v.dtype(), "append_one", [&](auto tag) {
    using S = decltype(tag);
    map_places<S>(AppendOne<S>{v.dim(-1), Elements<S>(v)}, Sink{y});
  });
}

void append_one_backward(const Tensor& d_y, Sink d_v) {
  for_sum_type(d_y.dtype(), "append_one", [&](auto tag) {
    using S = decltype(tag);
    map_places<S>(AppendOneBackward<S>{d_y.dim(-1) - 1, Elements<S>(d_y)}, d_v);
  });
}

void sum_norm(const Tensor& o, bool changes_sign, Tensor y) {
  for_sum_type(o.dtype(), "sum_norm", [&](auto tag) {
    using S = decltype(tag);
    map_places<S>(SumNorm<S>{o.dim(-1) - 1, changes_sign, Elements<S>(o)}, Sink{y});
  });
}

void sum_norm_backward(const Tensor& o, bool changes_sign, const Tensor& y, const Tensor& d_y,
                       Sink d_o) {
  if (!d_o) return;
  for_sum_type(o.dtype(), "sum_norm", [&](auto tag) {
    using S = decltype(tag);
    const int64_t V = o.dim(-1) - 1, R = o.numel() / (V + 1);
    for_width<S>(
        V,
        [&](auto width) {
          constexpr int W = decltype(width)::value;
          for_each_row<W>(context(o), R, V,
                          SumNormBackwardRow<S, W>{V, changes_sign, Elements<S>(o), Elements<S>(y),
                                                   Elements<S>(d_y), Result<S>(d_o)});
        },
        y, d_y);
  });
}

}  // namespace regla::cuda
