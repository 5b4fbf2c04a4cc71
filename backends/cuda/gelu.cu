#include "backends/cuda/columns.cuh"
#include "backends/cuda/gelu.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/map.cuh"

namespace regla::cuda {
namespace {

struct GeluBackward {
  template <class S>
  __device__ S operator()(S x, S d_y) const {
    const Normal<S> normal(x);
    return d_y * (normal.below + x * normal.density);
  }
};

struct TanhGeluBackward {
  template <class S>
  __device__ S operator()(S x, S d_y) const {
    // s (1 - s) from e^-|2 inner|: 1 - s has few digits left where s is near 1.
    const S z = 2 * inner(x), e = precise_exp(z < 0 ? z : -z), r = reciprocal(1 + e);
    const S s = z < 0 ? e * r : r;
    const S d_inner = S(0.79788456080286535588) * (1 + 3 * S(0.044715) * x * x);
    return d_y * (s + 2 * x * (e * r * r) * d_inner);
  }
};

/// f(x, d_y) to d_x, and its sums over the rows. Bytes: x, d_y and d_x once.
template <class Loads, class F>
struct SummedGradient {
  using S = typename Loads::View::S;
  static constexpr int W = Loads::kWidth;

  F f;
  typename Loads::View x, d_y;
  RowsResult<S> d_x;
  int64_t columns;

  struct Fetched {
    typename Loads::View::template Raw<W> x, d_y;
  };
  __device__ int64_t place(int64_t c) const { return c; }
  __device__ Fetched fetch(int64_t r, int64_t c) const {
    Fetched raw;
    x.template fetch<W>(r * columns + c, raw.x);
    d_y.template fetch<W>(r * columns + c, raw.d_y);
    return raw;
  }
  __device__ void add(int64_t r, int64_t c, const Fetched& raw, S (&total)[1][W]) const {
    S v[W], d[W];
    x.template unpack<W>(raw.x, v);
    d_y.template unpack<W>(raw.d_y, d);
    for (int w = 0; w < W; ++w) total[0][w] += d[w] = f(v[w], d[w]);
    d_x.put(r, c, d);
  }
};

}  // namespace

void gelu(const Tensor& x, bool tanh, Tensor y) {
  for_sum_type(x.dtype(), "gelu", [&](auto tag) {
    using S = decltype(tag);
    tanh ? map<S>(TanhGelu{}, Sink{y}, x) : map<S>(Gelu{}, Sink{y}, x);
  });
}

void gelu_backward(const Tensor& x, bool tanh, const Tensor& d_y, const LinearSink& d_x) {
  if (!d_x) return;
  const Sink& matrix = d_x.rows.matrix;
  const int64_t N = x.rank() == 0 ? 1 : x.dim(-1), R = N == 0 ? 0 : x.numel() / N;
  for_sum_type(x.dtype(), "gelu", [&](auto tag) {
    using S = decltype(tag);
    if (is_plain(d_x, N)) {
      return tanh ? map<S>(TanhGeluBackward{}, matrix, x, d_y)
                  : map<S>(GeluBackward{}, matrix, x, d_y);
    }
    for_loads<S>(
        N,
        [&](auto loads) {
          using Loads = decltype(loads);
          const auto run = [&](const auto& slope) {
            using View = typename Loads::View;
            using F = std::remove_cvref_t<decltype(slope)>;
            sum_columns<Loads::kWidth>(
                context(x), R, N,
                SummedGradient<Loads, F>{slope, View(x), View(d_y), RowsResult<S>(d_x.rows), N},
                ColumnSums<S, 1>{{Result<S>(d_x.sums)}});
          };
          tanh ? run(TanhGeluBackward{}) : run(GeluBackward{});
        },
        x, d_y, matrix.tensor);
  });
}

}  // namespace regla::cuda
