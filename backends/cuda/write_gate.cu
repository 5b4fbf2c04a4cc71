#include "backends/cuda/kernels.h"
#include "backends/cuda/map.cuh"
#include "backends/cuda/rows.cuh"

// What a gate g lets in where its complement writes (Peng et al. 2021, Eq. 6-7):
//   y = (1 - g) x,  g = e^log_g
// for one g per row or one per element; 1 - g comes from the log and keeps its digits near 0.
namespace regla::cuda {
namespace {

struct WriteGate {
  template <class S>
  __device__ S operator()(S x, S log_g) const {
    return -expm1(log_g) * x;
  }
};

// d_x = (1 - g) d_y,  d_log_g = -g x d_y, summed over a row that shares its gate
struct WriteGateBackward {
  template <class S>
  __device__ Pair<S> operator()(S x, S log_g, S d_y) const {
    return {-expm1(log_g) * d_y, -exp(log_g) * x * d_y};
  }
};

// Bytes: x and y once.
template <class S, int W>
struct WriteGateRow {
  int64_t N;
  Elements<S> x, log_g;
  Result<S> y;

  __device__ void operator()(const Team& team, int64_t row) const {
    if (!team.is_active) return;  // nothing is summed here
    const S complement = -expm1(log_g[row]);
    team.each<W>(N, [&](int64_t j) {
      S v[W];
      x.load(row * N + j, v);
      for (int w = 0; w < W; ++w) v[w] *= complement;
      y.put(row * N + j, v);
    });
  }
};

// Bytes: x, d_y and d_x once.
template <class S, int W>
struct WriteGateBackwardRow {
  int64_t N;
  Elements<S> x, log_g, d_y;
  Result<S> d_x, d_log_g;

  __device__ void operator()(const Team& team, int64_t row) const {
    const S log = team.is_active ? log_g[row] : S(0), complement = -expm1(log);
    S dot = 0;
    team.each<W>(N, [&](int64_t j) {
      S v[W], d[W];
      x.load(row * N + j, v);
      d_y.load(row * N + j, d);
      for (int w = 0; w < W; ++w) {
        dot += v[w] * d[w];
        d[w] *= complement;
      }
      if (d_x) d_x.put(row * N + j, d);
    });
    dot = team.sum(dot);
    if (team.leads() && d_log_g) d_log_g.put(row, -exp(log) * dot);
  }
};

}  // namespace

void write_gate(const Tensor& x, const Tensor& log_g, Tensor y) {
  for_sum_type(x.dtype(), "write_gate", [&](auto tag) {
    using S = decltype(tag);
    if (log_g.numel() == x.numel()) return map<S>(WriteGate{}, Sink{y}, x, log_g);
    const int64_t N = x.dim(-1), R = x.numel() / N;
    for_width<S>(
        N,
        [&](auto width) {
          constexpr int W = decltype(width)::value;
          for_each_row<W>(context(y), R, N,
                          WriteGateRow<S, W>{N, Elements<S>(x), Elements<S>(log_g), Result<S>(y)});
        },
        x, y);
  });
}

void write_gate_backward(const Tensor& x, const Tensor& log_g, const Tensor& d_y, Sink d_x,
                         Sink d_log_g) {
  if (!d_x && !d_log_g) return;
  for_sum_type(x.dtype(), "write_gate", [&](auto tag) {
    using S = decltype(tag);
    if (log_g.numel() == x.numel()) {
      return map_pair<S>(WriteGateBackward{}, d_x, d_log_g, x, log_g, d_y);
    }
    const int64_t N = x.dim(-1), R = x.numel() / N;
    for_width<S>(
        N,
        [&](auto width) {
          constexpr int W = decltype(width)::value;
          for_each_row<W>(
              context(x), R, N,
              WriteGateBackwardRow<S, W>{N, Elements<S>(x), Elements<S>(log_g), Elements<S>(d_y),
                                         Result<S>(d_x), Result<S>(d_log_g)});
        },
        x, d_y, d_x.tensor);
  });
}

}  // namespace regla::cuda
