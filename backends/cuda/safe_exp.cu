#include "backends/cuda/kernels.h"
#include "backends/cuda/rows.cuh"

// phi(z)_t[i] = scale * exp(z_t[i] - m_t) (Eq. 11-12), with m_t as SafeExpArgs says. argmax_t tells
// the backward pass what attains m_t: t * K + i for an element of z, kFromState for m0. The
// maximum of numbers with a NaN among them is NaN, and stays so until a reset.
//
// Three steps: the maximum of every row; along time a scan of those, a warp per head, where a
// reset forgets what came before; the exponentials. Backward is the same way round: products and
// their sums per row, then along time sums over the tokens that one element is owed by.
namespace regla::cuda {
namespace {

constexpr int32_t kFromState = -1, kNothing = -2;
constexpr unsigned kAll = 0xffffffffu;
constexpr int kHeld = 4;  // loads of a row that stay in a thread's registers

template <class S>
__device__ S lowest() {
  return -std::numeric_limits<S>::infinity();
}

/// A maximum and what attains it: kNothing if no number does.
template <class S>
struct Best {
  S m;
  int32_t arg;
};

/// The maximum of row t of a head; ties go to the lowest feature.
template <class S, int W>
__device__ Best<S> best_of_row(const Team& team, const HeldRow<S, W, kHeld>& row, int64_t t,
                               int64_t K) {
  S largest = lowest<S>();
  int is_nan = 0;
  row.each([&](int64_t, const S(&v)[W]) {
    for (int w = 0; w < W; ++w) {
      if (v[w] != v[w]) is_nan = 1;
      largest = v[w] > largest ? v[w] : largest;
    }
  });
  largest = team.max(largest);
  is_nan = team.max(is_nan);
  constexpr int32_t kNowhere = std::numeric_limits<int32_t>::max();
  int32_t place = kNowhere;
  row.each([&](int64_t j, const S(&v)[W]) {
    for (int w = W - 1; w >= 0; --w) {
      const auto at = static_cast<int32_t>(j) + w;
      if (v[w] == largest && at < place) place = at;
    }
  });
  place = team.min(place);
  if (is_nan != 0) return {std::numeric_limits<S>::quiet_NaN(), kNothing};
  if (!(largest > lowest<S>())) return {largest, kNothing};
  return {largest, static_cast<int32_t>(t * K) + place};
}

// Bytes: z once.
template <class S, int W>
struct MaximumRow {
  int64_t steps, H, K;
  Elements<S> z;
  S* m;  // [B, T, H]
  int32_t* argmax;

  __device__ void operator()(const Team& team, int64_t row) const {
    const HeldRow<S, W, kHeld> held(team, z, row * K, K);
    const Best<S> best = best_of_row(team, held, row / H % steps, K);
    if (!team.leads()) return;
    m[row] = best.m;
    argmax[row] = best.arg;
  }
};

// Bytes: z and the features once.
template <class S, int W>
struct TokenRow {
  int64_t steps, H, K;
  S scale;
  Elements<S> z;
  Result<S> features;
  int32_t* argmax;

  __device__ void operator()(const Team& team, int64_t row) const {
    const HeldRow<S, W, kHeld> held(team, z, row * K, K);
    const Best<S> best = best_of_row(team, held, row / H % steps, K);
    if (team.leads()) argmax[row] = best.arg == kNothing ? kFromState : best.arg;
    held.each([&](int64_t j, const S(&v)[W]) {
      S out[W];
      for (int w = 0; w < W; ++w) out[w] = scale * exp(v[w] - best.m);
      features.put(row * K + j, out);
    });
  }
};

// Bytes: z and the features once.
template <class S, int W>
struct FeaturesRow {
  int64_t K;
  S scale;
  Elements<S> z;
  const S* m;  // [B, T, H]
  Result<S> features;

  __device__ void operator()(const Team& team, int64_t row) const {
    if (!team.is_active) return;  // nothing is summed here
    const S largest = m[row];
    team.each<W>(K, [&](int64_t j) {
      S v[W];
      z.load(row * K + j, v);
      for (int w = 0; w < W; ++w) v[w] = scale * exp(v[w] - largest);
      features.put(row * K + j, v);
    });
  }
};

/// What a warp knows of its head, one sequence's.
template <class S>
struct Scan {
  int64_t steps, H;
  bool by_sequence;      // one maximum for all tokens from reset to reset
  const int32_t* reset;  // [B, T] or null
  Elements<S> m0;        // [B, H] or null
  S* m;                  // [B, T, H]: in, maxima of rows; out, of the tokens so far
  int32_t* argmax;       // the same
  Result<S> log_rho;     // [B, T, H]
  Result<S> last;        // [B, H]

  __device__ int64_t at(int64_t n, int64_t t) const { return (n / H * steps + t) * H + n % H; }
  __device__ bool resets(int64_t n, int64_t t) const {
    return reset != nullptr && t < steps && reset[n / H * steps + t] != 0;
  }
};

/// Later tokens on top of earlier ones: ties stay with the earlier, NaN stays.
template <class S>
__device__ Best<S> joined(const Best<S>& earlier, const Best<S>& later, bool later_resets) {
  if (later_resets) return {later.m, later.arg == kNothing ? earlier.arg : later.arg};
  const bool is_nan = earlier.m != earlier.m || later.m != later.m;
  const bool is_raised = !is_nan && later.m > earlier.m;
  const int32_t first = earlier.arg == kNothing ? later.arg : earlier.arg;
  return {is_nan ? earlier.m + later.m : (is_raised ? later.m : earlier.m),
          is_raised ? later.arg : first};
}

/// log rho = m_before - m, but 0 while nothing was seen: -infinity must not enter a sum.
template <class S>
__device__ S log_ratio(S before, S now) {
  return before == lowest<S>() ? S(0) : before - now;
}

template <class S>
__device__ Best<S> shuffled_up(const Best<S>& x, int offset) {
  return {__shfl_up_sync(kAll, x.m, offset), __shfl_up_sync(kAll, x.arg, offset)};
}
template <class S>
__device__ Best<S> of_lane(const Best<S>& x, int lane) {
  return {__shfl_sync(kAll, x.m, lane), __shfl_sync(kAll, x.arg, lane)};
}

/// m_t = max(m_{t-1}, row t), and log rho_t, 32 tokens at a time.
template <class S>
__device__ void scan_forward(const Scan<S>& scan, int64_t n, int lane) {
  Best<S> carried = {scan.m0 ? scan.m0[n] : lowest<S>(), kFromState};
  for (int64_t first = 0; first < scan.steps; first += 32) {
    const int64_t t = first + lane, at = scan.at(n, t);
    Best<S> best = {lowest<S>(), kNothing};
    if (t < scan.steps) best = {scan.m[at], scan.argmax[at]};
    const bool resets = scan.resets(n, t);
    int is_cut = resets;  // whether a reset lies among the tokens joined so far
    for (int offset = 1; offset < 32; offset *= 2) {
      const Best<S> earlier = shuffled_up(best, offset);
      const int earlier_cut = __shfl_up_sync(kAll, is_cut, offset);
      if (lane < offset) continue;
      best = joined(earlier, best, is_cut != 0);
      is_cut = is_cut | earlier_cut;
    }
    best = joined(carried, best, is_cut != 0);
    Best<S> before = shuffled_up(best, 1);
    if (lane == 0) before = carried;
    if (t < scan.steps) {
      scan.m[at] = best.m;
      scan.argmax[at] = best.arg;
      scan.log_rho.put(at, resets ? S(0) : log_ratio(before.m, best.m));
    }
    const auto behind = static_cast<int>(min(int64_t{31}, scan.steps - 1 - first));
    carried = of_lane(best, behind);
  }
  if (lane == 0) scan.last.put(n, carried.m);
}

/// Gives all tokens from reset to reset what the last of them has, from the last 32 on.
template <class S>
__device__ void spread_back(const Scan<S>& scan, int64_t n, int lane) {
  Best<S> carried = {lowest<S>(), kNothing};
  for (int64_t first = (scan.steps - 1) / 32 * 32; first >= 0; first -= 32) {
    const int64_t t = first + lane, at = scan.at(n, t);
    Best<S> best = {lowest<S>(), kNothing};
    if (t < scan.steps) best = {scan.m[at], scan.argmax[at]};
    const bool is_last = t == scan.steps - 1 || scan.resets(n, t + 1);
    const unsigned lasts = __ballot_sync(kAll, is_last) >> lane;
    const Best<S> there =
        of_lane(best, lasts == 0 ? lane : lane + __ffs(static_cast<int>(lasts)) - 1);
    best = lasts == 0 ? carried : there;
    if (t < scan.steps) {
      scan.m[at] = best.m;
      scan.argmax[at] = best.arg;
      const S seen = scan.m0 ? scan.m0[n] : lowest<S>();
      const bool counts = t == 0 && !scan.resets(n, 0);
      scan.log_rho.put(at, counts ? log_ratio(seen, best.m) : S(0));
    }
    carried = of_lane(best, 0);
  }
}

constexpr int kWarps = 4;

template <class S>
__global__ void scan_maxima(int64_t heads, Scan<S> scan) {
  const int64_t n = int64_t{blockIdx.x} * kWarps + threadIdx.y;
  if (n >= heads) return;
  const int lane = static_cast<int>(threadIdx.x);
  scan_forward(scan, n, lane);
  if (!scan.by_sequence) return;
  __syncwarp();
  spread_back(scan, n, lane);
}

template <class S>
void launch(const SafeExpArgs& args, const SafeExpResult& result) {
  const Context& on = context(args.z);
  const int64_t B = args.z.dim(0), steps = args.z.dim(1), H = args.z.dim(2), K = args.z.dim(3);
  const int64_t rows = B * steps * H;
  const Elements<S> z(args.z);
  const Result<S> features(result.features);
  const auto scale = static_cast<S>(args.scale);
  Tensor places = result.argmax;
  auto* argmax = places.data<int32_t>();
  for_width<S>(
      K,
      [&](auto width) {
        constexpr int W = decltype(width)::value;
        if (args.maximum == Maximum::Token) {
          for_each_row<W>(on, rows, K, TokenRow<S, W>{steps, H, K, scale, z, features, argmax});
          return;
        }
        Tensor maxima = Tensor::empty({B, steps, H}, dtype_of<S>, on.device);
        S* m = maxima.data<S>();
        for_each_row<W>(on, rows, K, MaximumRow<S, W>{steps, H, K, z, m, argmax});
        const Scan<S> scan = {.steps = steps,
                              .H = H,
                              .by_sequence = args.maximum == Maximum::Sequence,
                              .reset = args.reset ? args.reset.data<int32_t>() : nullptr,
                              .m0 = Elements<S>(args.m0),
                              .m = m,
                              .argmax = argmax,
                              .log_rho = Result<S>(result.log_rho),
                              .last = Result<S>(result.m)};
        const auto blocks = static_cast<unsigned>((B * H + kWarps - 1) / kWarps);
        scan_maxima<<<blocks, dim3(32, kWarps), 0, on.stream>>>(B * H, scan);
        for_each_row<W>(on, rows, K, FeaturesRow<S, W>{K, scale, z, m, features});
      },
      args.z, result.features);
  require_launched("safe_exp");
}

}  // namespace

void safe_exp(const SafeExpArgs& args, SafeExpResult& result) {
  if (args.z.numel() == 0) return;
  for_sum_type(args.z.dtype(), "safe_exp", [&](auto tag) { launch<decltype(tag)>(args, result); });
}

}  // namespace regla::cuda
