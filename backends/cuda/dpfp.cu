#include "backends/cuda/kernels.h"
#include "backends/cuda/rows.cuh"

// Deterministic parameter-free projection (Schlag et al. 2021, section 5.3), divided by its sum:
//   x' = [relu(x), relu(-x)],  f = [x' * roll(x', 1), ..., x' * roll(x', nu)],  y = f / (sum f +
//   1e-5)
// where roll(x', i)[m] = x'[m - i], around.
namespace regla::cuda {
namespace {

/// x' of one row; NaN in both halves.
template <class S>
struct Halves {
  Elements<S> x;
  int64_t start, N;

  __device__ S operator[](int64_t m) const {
    const S v = x[start + (m < N ? m : m - N)];
    if (m < N) return v <= 0 ? S(0) : v;
    return v >= 0 ? S(0) : -v;
  }
  /// Element m - i, around.
  __device__ int64_t before(int64_t m, int64_t i) const { return m < i ? m - i + 2 * N : m - i; }
  __device__ int64_t after(int64_t m, int64_t i) const {
    return m + i < 2 * N ? m + i : m + i - 2 * N;
  }
  /// f at index i M + m - M, i counted from 1.
  __device__ S product(int64_t at) const {
    const int64_t i = at / (2 * N) + 1, m = at % (2 * N);
    return (*this)[m] * (*this)[before(m, i)];
  }
};

// Rows of any length: nothing is held, elements are read again from the nearest cache.
// Bytes: x and y once.
template <class S>
struct DpfpRow {
  int64_t N, nu;
  Elements<S> x;
  Result<S> y;

  __device__ void operator()(const Team& team, int64_t row) const {
    const Halves<S> both = {x, row * N, N};
    const int64_t count = 2 * N * nu;
    S sum = 0;
    team.each<1>(count, [&](int64_t at) { sum += both.product(at); });
    const S factor = 1 / (S(1e-5) + team.sum(sum));
    team.each<1>(count, [&](int64_t at) { y.put(row * count + at, both.product(at) * factor); });
  }
};

// Bytes: x, d_y and d_x once.
template <class S>
struct DpfpBackwardRow {
  int64_t N, nu;
  Elements<S> x, d_y;
  Result<S> d_x;

  __device__ void operator()(const Team& team, int64_t row) const {
    const Halves<S> both = {x, row * N, N};
    const int64_t M = 2 * N, count = M * nu, first = row * count;
    S sum = 0, dot = 0;
    team.each<1>(count, [&](int64_t at) {
      const S f = both.product(at);
      sum += f;
      dot += d_y[first + at] * f;
    });
    sum = S(1e-5) + team.sum(sum);
    const S factor = 1 / sum;
    dot = team.sum(dot) / sum;  // d_y of a lone feature leaves next to nothing: no rounding more
    // y = f / sum:  d_f = (d_y - sum(d_y y)) / sum;  f_i[m] = x'[m] x'[m - i]
    const auto d_both = [&](int64_t m) {
      S d = 0;
      for (int64_t i = 1; i <= nu; ++i) {
        const int64_t start = first + (i - 1) * M, after = both.after(m, i);
        d += (d_y[start + m] - dot) * factor * both[both.before(m, i)];
        d += (d_y[start + after] - dot) * factor * both[after];
      }
      return d;
    };
    team.each<1>(N, [&](int64_t n) {
      const S v = x[row * N + n];
      d_x.put(row * N + n, v > 0 ? d_both(n) : (v == 0 ? S(0) : -d_both(N + n)));
    });
  }
};

// Rows of which each lane of a warp holds W elements of x': those before and after them, by up to
// W, are its neighbours'. Bytes: x and y once.
template <class T, int W>
struct DpfpLanes {
  static constexpr int N = 16 * W, M = 2 * N;

  int nu;
  Typed<T> x;
  Result<float> y;

  /// This lane's elements of x' behind those of the lane before, and x itself.
  struct Window {
    float at[2 * W], x[W];

    __device__ Window(const DpfpLanes& of, const Team& team, int64_t row) {
      of.x.load(row * N + team.lane % 16 * W, x);
#pragma unroll
      for (int w = 0; w < W; ++w) {
        const float v = team.lane < 16 ? x[w] : -x[w];
        at[W + w] = v <= 0 ? 0 : v;
        at[w] = __shfl_sync(0xffffffffu, at[W + w], team.lane + 31);
      }
    }
    __device__ float product(int w, int i) const { return at[W + w] * at[W + w - i]; }
  };

  template <class F>
  __device__ void each_shift(F f) const {
#pragma unroll
    for (int i = 1; i <= W; ++i) {
      if (i <= nu) f(i);
    }
  }

  __device__ void operator()(const Team& team, int64_t row) const {
    if (!team.is_active) return;  // a whole warp
    const Window window(*this, team, row);
    float sum = 0;
    each_shift([&](int i) {
      for (int w = 0; w < W; ++w) sum += window.product(w, i);
    });
    const float factor = 1 / (1e-5F + team.sum(sum));
    each_shift([&](int i) {
      float out[W];
      for (int w = 0; w < W; ++w) out[w] = window.product(w, i) * factor;
      y.put((row * nu + i - 1) * M + team.lane * W, out);
    });
  }
};

// With d_f = (d_y - sum(d_y y)) / sum f:  d_x'[m] = sum_i d_f_i[m] x'[m - i] + d_f_i[m + i] x'[m +
// i]. y is f again, which takes no bytes. Bytes: x, d_y and d_x once.
template <class T, int W>
struct DpfpBackwardLanes {
  static constexpr int N = 16 * W, M = 2 * N;

  DpfpLanes<T, W> forward;
  Typed<T> d_y;
  Result<float> d_x;

  __device__ void operator()(const Team& team, int64_t row) const {
    if (!team.is_active) return;  // a whole warp
    Pack<T, W> raw[W];
    forward.each_shift([&](int i) {
      d_y.template fetch<W>((row * forward.nu + i - 1) * M + team.lane * W, raw[i - 1]);
    });
    const typename DpfpLanes<T, W>::Window window(forward, team, row);
    float sums[2] = {}, total[W] = {};  // of f and d_y f
    forward.each_shift([&](int i) {
      float d[W];
      d_y.template unpack<W>(raw[i - 1], d);
      for (int w = 0; w < W; ++w) {
        sums[0] += window.product(w, i);
        sums[1] += d[w] * window.product(w, i);
      }
    });
    team.sum(sums);
    const float sum = 1e-5F + sums[0], factor = 1 / sum, dot = sums[1] / sum;
    forward.each_shift([&](int i) {
      float d[W], after[2 * W];  // d_f x' of this lane and the next
      d_y.template unpack<W>(raw[i - 1], d);
#pragma unroll
      for (int w = 0; w < W; ++w) {
        d[w] = (d[w] - dot) * factor;
        after[w] = d[w] * window.at[W + w];
        after[W + w] = __shfl_sync(0xffffffffu, after[w], team.lane + 1);
      }
#pragma unroll
      for (int w = 0; w < W; ++w) total[w] += d[w] * window.at[W + w - i] + after[w + i];
    });
#pragma unroll
    for (int w = 0; w < W; ++w) {
      const float other = __shfl_xor_sync(0xffffffffu, total[w], 16), v = window.x[w];
      total[w] = v > 0 ? total[w] : (v == 0 ? 0 : -other);
    }
    if (team.lane < 16) d_x.put(row * N + team.lane * W, total);
  }
};

/// Calls `f` with the type of x and W if lanes can hold rows of N, and their neighbours' elements
/// reach.
template <class F, class... Tensors>
bool for_lanes(int64_t N, int64_t nu, F&& f, const Tensor& x, const Tensors&... beside) {
  const auto with_type = [&](auto width) {
    constexpr int W = decltype(width)::value;
    if (N != 16 * W || nu > W || !are_aligned<W>(x, beside...)) return false;
    if (x.dtype() == DType::F32) {
      f(float{}, width);
    } else {
      f(__nv_bfloat16{}, width);
    }
    return true;
  };
  if (x.dtype() == DType::F64) return false;
  return with_type(std::integral_constant<int, 4>{}) || with_type(std::integral_constant<int, 8>{});
}

}  // namespace

void dpfp(const Tensor& x, int64_t nu, Tensor y) {
  const int64_t N = x.dim(-1), R = x.numel() / N;
  const auto by_lanes = [&](auto type, auto width) {
    using T = decltype(type);
    constexpr int W = decltype(width)::value;
    for_each_row<W>(context(y), R, 2 * N,
                    DpfpLanes<T, W>{static_cast<int>(nu), Typed<T>(x), Result<float>(y)});
  };
  if (for_lanes(N, nu, by_lanes, x, y)) return;
  for_sum_type(x.dtype(), "dpfp", [&](auto tag) {
    using S = decltype(tag);
    for_each_row<1>(context(y), R, 2 * N * nu, DpfpRow<S>{N, nu, Elements<S>(x), Result<S>(y)});
  });
}

// y is taken from x again: that is exact, and costs no bytes.
void dpfp_backward(const Tensor& x, int64_t nu, const Tensor&, const Tensor& d_y, Sink d_x) {
  if (!d_x) return;
  const int64_t N = x.dim(-1), R = x.numel() / N;
  const auto by_lanes = [&](auto type, auto width) {
    using T = decltype(type);
    constexpr int W = decltype(width)::value;
    for_each_row<W>(context(x), R, 2 * N,
                    DpfpBackwardLanes<T, W>{{static_cast<int>(nu), Typed<T>(x), Result<float>()},
                                            Typed<T>(d_y),
                                            Result<float>(d_x)});
  };
  if (for_lanes(N, nu, by_lanes, x, d_y, d_x.tensor)) return;
  for_sum_type(x.dtype(), "dpfp", [&](auto tag) {
    using S = decltype(tag);
    for_each_row<1>(context(x), R, 2 * N * nu,
                    DpfpBackwardRow<S>{N, nu, Elements<S>(x), Elements<S>(d_y), Result<S>(d_x)});
  });
}

}  // namespace regla::cuda
