#include "backends/cuda/columns.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/norm.cuh"
#include "backends/cuda/rows.cuh"

namespace regla::cuda {
namespace {

// With x^ = (x - mean) * inverse and w = d_y * gain:
//   d_x = inverse * (w - mean(w) [if centred] - x^ * mean(w * x^))
// Bytes: x, d_y and d_x once.
template <class S, int W>
struct NormBackwardRow {
  int64_t N, G;
  Elements<S> x, gain, mean, inverse, d_y;
  bool center;
  Result<S> d_x;

  __device__ void operator()(const Team& team, int64_t row) const {
    const HeldRow<S, W, 8> held(team, x, row * N, N), d(team, d_y, row * N, N);
    const int64_t group = row % G * N;
    const S m = team.is_active ? mean[row] : S(0), scale = team.is_active ? inverse[row] : S(0);
    S sum_w = 0, sum_wx = 0;
    held.with(d, [&](int64_t j, const S(&v)[W], const S(&dv)[W]) {
      S g[W];
      gain.load(group + j, g);
      for (int w = 0; w < W; ++w) {
        const S weighted = dv[w] * g[w];
        sum_w += weighted;
        sum_wx += weighted * (v[w] - m) * scale;
      }
    });
    const S mean_w = center ? team.sum(sum_w) / static_cast<S>(N) : S(0);
    const S mean_wx = team.sum(sum_wx) / static_cast<S>(N);
    held.with(d, [&](int64_t j, const S(&v)[W], const S(&dv)[W]) {
      S g[W], out[W];
      gain.load(group + j, g);
      for (int w = 0; w < W; ++w) {
        out[w] = scale * (dv[w] * g[w] - mean_w - (v[w] - m) * scale * mean_wx);
      }
      d_x.put(row * N + j, out);
    });
  }
};

/// d_gain and d_bias, [G, N], as sums over the rows of a matrix [R / G, G N].
// Bytes: x and d_y once more.
template <class S, int W>
struct NormParameters {
  int64_t N, G, R;
  Elements<S> x, mean, inverse, d_y;

  struct Fetched {
    typename Elements<S>::template Raw<W> x, d_y;
    S mean, inverse;
  };
  __device__ int64_t place(int64_t c) const { return c; }
  __device__ Fetched fetch(int64_t r, int64_t c) const {
    const int64_t row = r * G + c / N, at = r * G * N + c;
    Fetched raw = {};
    if (row >= R) return raw;
    x.template fetch<W>(at, raw.x);
    d_y.template fetch<W>(at, raw.d_y);
    raw.mean = mean[row];
    raw.inverse = inverse[row];
    return raw;
  }
  __device__ void add(int64_t r, int64_t c, const Fetched& raw, S (&total)[2][W]) const {
    if (r * G + c / N >= R) return;
    S v[W], d[W];
    x.template unpack<W>(raw.x, v);
    d_y.template unpack<W>(raw.d_y, d);
    for (int w = 0; w < W; ++w) {
      total[0][w] += d[w] * (v[w] - raw.mean) * raw.inverse;
      total[1][w] += d[w];
    }
  }
};

/// The gradient of x, then those of gain and bias: for rows of any size.
template <class S, int W>
void gradients_apart(const Context& on, const NormBackwardRow<S, W>& rows, int64_t R, Sink d_gain,
                     Sink d_bias) {
  if (rows.d_x) for_each_row<W>(on, R, rows.N, rows);
  if (!d_gain && !d_bias) return;
  sum_columns<W>(on, (R + rows.G - 1) / rows.G, rows.G * rows.N,
                 NormParameters<S, W>{rows.N, rows.G, R, rows.x, rows.mean, rows.inverse, rows.d_y},
                 ColumnSums<S, 2>{{Result<S>(d_gain), Result<S>(d_bias)}});
}

/// What came to the norm's x by dropout.
struct Branch {
  const KeptElements* kept = nullptr;  // [lines, lanes]; null: nothing did
  float scale = 0;                     // of what is kept
  Result<float> d_x;
};

// All three in one pass, by lines (norm.cuh) of P loads. A team goes from line to line, keeps the
// sums of its columns in registers and fetches the next line while it works. Teams are warps, or
// blocks where a line is long. A row is a whole line (G = 1), or lies in `row_lanes` lanes of one
// load, has no bias then, and its gradient seldom grows from another. A whole line may have a
// branch that came by dropout. Bytes: x, d_y and d_x once; of a branch its gradient, a bit for an
// element.
template <class X, class D, int W, int P, bool IsWhole>
struct NormLines {
  static constexpr int kStats = IsWhole ? 1 : P;        // rows that a thread holds parts of
  static constexpr int kThreads = IsWhole ? 256 : 384;  // as many as registers allow
  static constexpr int kSums = IsWhole ? 2 : 1;         // of gain, and of bias

  int64_t lines;
  int G, lanes, row_lanes;
  Typed<X> x;
  Typed<D> d_y;
  Typed<float> gain, mean, inverse;
  float share;  // 1 / N
  bool center;
  Result<float> d_x;
  Branch branch;
  float* partial;  // [blocks, kSums, columns]

  __device__ int columns() const { return lanes * W * P; }
  __device__ int lane() const { return static_cast<int>(threadIdx.x) % lanes; }
  __device__ int column(int p) const { return (p * lanes + lane()) * W; }

  struct Fetched {
    Pack<X, W> x[P];
    Pack<D, W> d_y[P];
    float mean[kStats], inverse[kStats];
    KeptElements kept;
  };
  __device__ void fetch(int64_t line, Fetched& to) const {
#pragma unroll
    for (int p = 0; p < P; ++p) {
      x.template fetch<W>(line * columns() + column(p), to.x[p]);
      d_y.template fetch<W>(line * columns() + column(p), to.d_y[p]);
    }
#pragma unroll
    for (int q = 0; q < kStats; ++q) {
      const int64_t row = IsWhole ? line : line * G + (q * 32 + lane()) / row_lanes;
      to.mean[q] = mean[row];
      to.inverse[q] = inverse[row];
    }
    if (IsWhole && branch.kept != nullptr) to.kept = branch.kept[line * lanes + lane()];
  }

  /// Takes a line that was fetched, and fetches the next one while it works.
  __device__ void add_line(int64_t line, int64_t next, Fetched& fetched,
                           float (&sums)[kSums][P][W]) const {
    float hat[P][W], w[P][W], sum[P][W], m[kStats], scale[kStats];  // x^, d_y * gain, d_x
#pragma unroll
    for (int p = 0; p < P; ++p) {
      if (IsWhole) d_x.before(line * columns() + column(p), sum[p]);
      x.template unpack<W>(fetched.x[p], hat[p]);
      d_y.template unpack<W>(fetched.d_y[p], w[p]);
    }
#pragma unroll
    for (int q = 0; q < kStats; ++q) {
      m[q] = fetched.mean[q];
      scale[q] = fetched.inverse[q];
    }
    const KeptElements kept = fetched.kept;
    fetch(next < lines ? next : line, fetched);
    float of_w[kStats] = {}, of_wx[kStats] = {};
#pragma unroll
    for (int p = 0; p < P; ++p) {
      const int q = IsWhole ? 0 : p;
      float g[W];
      gain.load(column(p), g);
#pragma unroll
      for (int i = 0; i < W; ++i) {
        hat[p][i] = (hat[p][i] - m[q]) * scale[q];
        sums[0][p][i] += w[p][i] * hat[p][i];
        if constexpr (kSums == 2) sums[1][p][i] += w[p][i];
        w[p][i] *= g[i];
        of_w[q] += w[p][i];
        of_wx[q] += w[p][i] * hat[p][i];
      }
    }
    const Team row = {IsWhole ? lanes : row_lanes, lane(), true};
    row.sum(of_wx);
    if (center) row.sum(of_w);
#pragma unroll
    for (int p = 0; p < P; ++p) {
      const int q = IsWhole ? 0 : p;
      const float mean_w = center ? share * of_w[q] : 0, mean_wx = share * of_wx[q];
#pragma unroll
      for (int i = 0; i < W; ++i) w[p][i] = scale[q] * (w[p][i] - mean_w - hat[p][i] * mean_wx);
      if (IsWhole) {
#pragma unroll
        for (int i = 0; i < W; ++i) w[p][i] += sum[p][i];
        d_x.set(line * columns() + column(p), w[p]);
        if (branch.kept != nullptr) {
#pragma unroll
          for (int i = 0; i < W; ++i) w[p][i] *= kept.has<W>(p, i) ? branch.scale : 0;
          branch.d_x.set(line * columns() + column(p), w[p]);
        }
      } else {
        d_x.put(line * columns() + column(p), w[p]);
      }
    }
  }
};

template <class X, class D, int W, int P, bool IsWhole>
__global__ __launch_bounds__((NormLines<X, D, W, P, IsWhole>::kThreads)) void norm_lines(
    NormLines<X, D, W, P, IsWhole> f) {
  using Lines = NormLines<X, D, W, P, IsWhole>;
  const int teams = Lines::kThreads / f.lanes;
  const int own = static_cast<int>(threadIdx.x) / f.lanes;
  const int64_t stride = int64_t{gridDim.x} * teams;
  float sums[Lines::kSums][P][W] = {};
  typename Lines::Fetched fetched;
  int64_t line = int64_t{blockIdx.x} * teams + own;
  if (line < f.lines) f.fetch(line, fetched);
  for (; line < f.lines; line += stride) f.add_line(line, line + stride, fetched, sums);
  // Team by team; a lane finds what it needs in its own bank.
  __shared__ float so_far[Lines::kSums][P][W][32];
  for (int turn = 0; turn < teams; ++turn) {
#pragma unroll
    for (int n = 0; n < Lines::kSums * P * W && own == turn; ++n) {
      const int m = n / (P * W), p = n / W % P, i = n % W;
      float& here = so_far[m][p][i][threadIdx.x % 32];
      if (turn > 0) sums[m][p][i] += here;
      if (turn + 1 < teams) here = sums[m][p][i];
    }
    __syncthreads();
  }
  if (own + 1 < teams) return;
  float* out = f.partial + int64_t{blockIdx.x} * Lines::kSums * f.columns();
#pragma unroll
  for (int n = 0; n < Lines::kSums * P; ++n) {
    const float(&v)[W] = sums[n / P][n % P];
    auto* to = reinterpret_cast<float4*>(out + n / P * f.columns() + f.column(n % P));
#pragma unroll
    for (int i = 0; i < W; i += 4) to[i / 4] = make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]);
  }
}

struct NormGradients {
  const NormArgs& args;
  const Tensor &mean, &inverse, &d_y;
  Sink d_x, d_gain, d_bias;
  Branch branch = {};
  int64_t N = args.x.dim(-1), R = args.x.numel() / N, columns = args.gain.numel(), G = columns / N;
};

template <class X, class D, int W, int P, bool IsWhole>
void gradients_together(const NormGradients& a, int lanes) {
  const Context& on = context(a.d_y);
  using Lines = NormLines<X, D, W, P, IsWhole>;
  const int64_t lines = a.R / a.G, teams = Lines::kThreads / lanes;
  const auto blocks = std::min<int64_t>(on.multiprocessors, (lines + teams - 1) / teams);
  Tensor partial = Tensor::empty({blocks, Lines::kSums, a.columns}, DType::F32, on.device);
  const Lines f = {.lines = lines,
                   .G = static_cast<int>(a.G),
                   .lanes = lanes,
                   .row_lanes = static_cast<int>(a.N / W),
                   .x = Typed<X>(a.args.x),
                   .d_y = Typed<D>(a.d_y),
                   .gain = Typed<float>(a.args.gain),
                   .mean = Typed<float>(a.mean),
                   .inverse = Typed<float>(a.inverse),
                   .share = 1 / static_cast<float>(a.N),
                   .center = a.args.center,
                   .d_x = Result<float>(a.d_x),
                   .branch = a.branch,
                   .partial = partial.data<float>()};
  norm_lines<<<static_cast<unsigned>(blocks), Lines::kThreads, 0, on.stream>>>(f);
  ColumnSums<float, Lines::kSums> out;
  out.at[0] = Result<float>(a.d_gain);
  if constexpr (Lines::kSums == 2) out.at[1] = Result<float>(a.d_bias);
  add_partial(on, blocks, a.columns, partial.data<float>(), out);
}

template <class X, class D, int W, bool IsWhole>
bool went_together(const NormGradients& a) {
  const int lanes = lanes_of_line(a.columns);
  if (!IsWhole && lanes > 32) return false;
  return for_line_loads<W>(a.columns, lanes, [&](auto loads) {
    gradients_together<X, D, W, decltype(loads)::value, IsWhole>(a, lanes);
  });
}

/// The types and shapes of training: whole rows in F32, heads in BF16.
bool went_together(const NormGradients& a) {
  const bool is_narrow = a.d_y.dtype() == DType::BF16;
  if (a.R == 0 || !a.d_x || !(a.d_gain || a.d_bias)) return false;
  if (a.G == 1 && a.args.x.dtype() == DType::F32 && a.N % kWide == 0 &&
      are_aligned<kWide>(a.args.x, a.args.gain, a.d_y, a.d_x.tensor)) {
    return is_narrow ? went_together<float, __nv_bfloat16, kWide, true>(a)
                     : went_together<float, float, kWide, true>(a);
  }
  return is_narrow && are_heads(a.args) && are_aligned<kWidest>(a.d_y, a.d_x.tensor) &&
         went_together<__nv_bfloat16, __nv_bfloat16, kWidest, false>(a);
}

}  // namespace

bool norm_branch_backward(const NormArgs& norm, const DropoutNormResult& forward,
                          const DropoutMask<float>& mask, const DropoutNormGradients& gradients) {
  const auto& [d_y, d_sum, d_x, d_gain, d_bias] = gradients;
  const bool is_whole = norm.gain.numel() == norm.x.dim(-1);
  if (!is_whole || !d_x || !are_aligned<kWide>(d_x)) return false;
  const auto* kept = reinterpret_cast<const KeptElements*>(forward.kept.data<int32_t>());
  return went_together({.args = norm,
                        .mean = forward.mean,
                        .inverse = forward.inverse,
                        .d_y = d_y,
                        .d_x = d_sum,
                        .d_gain = d_gain,
                        .d_bias = d_bias,
                        .branch = {kept, mask.scale, Result<float>(d_x)}});
}

void norm_backward(const NormArgs& args, const Tensor& mean, const Tensor& inverse,
                   const Tensor& d_y, Sink d_x, Sink d_gain, Sink d_bias) {
  if (went_together({args, mean, inverse, d_y, d_x, d_gain, d_bias})) return;
  for_sum_type(args.x.dtype(), "norm", [&](auto tag) {
    using S = decltype(tag);
    const int64_t N = args.x.dim(-1), R = args.x.numel() / N, G = args.gain.numel() / N;
    for_width<S>(
        N,
        [&](auto width) {
          constexpr int W = decltype(width)::value;
          gradients_apart(context(d_y),
                          NormBackwardRow<S, W>{.N = N,
                                                .G = G,
                                                .x = Elements<S>(args.x),
                                                .gain = Elements<S>(args.gain),
                                                .mean = Elements<S>(mean),
                                                .inverse = Elements<S>(inverse),
                                                .d_y = Elements<S>(d_y),
                                                .center = args.center,
                                                .d_x = Result<S>(d_x)},
                          R, d_gain, d_bias);
        },
        args.x, args.gain, d_y, d_x.tensor);
  });
}

}  // namespace regla::cuda
