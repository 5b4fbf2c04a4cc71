#include <limits>

#include "backends/cuda/kernels.h"
#include "backends/cuda/precise_math.cuh"
#include "backends/cuda/rotation.cuh"
#include "backends/cuda/scan.cuh"

// phi(z)_t[i] = scale * exp(z_t[i] - m_t) (Eq. 11-12), with z as it is once it was turned and m_t
// as SafeExpArgs says. argmax_t tells the backward pass what attains m_t: t * K + i for an element
// of z, kFromState for m0. The maximum of numbers with a NaN among them is NaN, and stays so until
// a reset.
//
// The maximum of a token is found and used in one pass. Those that go on from token to token take
// three: the maximum of every row; along time a scan of those, a block per head, where a reset
// forgets what came before; the exponentials, from the last row back, since what the first pass
// read last is still in the cache.
namespace regla::cuda {
namespace {

constexpr int32_t kFromState = -1, kNothing = -2;

template <class S>
__host__ __device__ S lowest() {
  return -std::numeric_limits<S>::infinity();
}

/// A maximum and what attains it: kNothing if no number does.
template <class S>
struct Best {
  S m;
  int32_t arg;
};

/// The maximum of a row; ties go to the lowest feature.
template <class Held>
__device__ Best<typename Held::S> best_of_row(const Team& team, PairedRow<Held>& z,
                                              int32_t first_arg) {
  using S = typename Held::S;
  const auto larger = [](S a, S b) { return larger_or_nan(a, b); };
  S largest = lowest<S>();
  z.each([&](int, const S(&v)[Held::W]) {
    for (int w = 0; w < Held::W; ++w) largest = larger(largest, v[w]);
  });
  largest = team.joined(largest, larger);
  constexpr int32_t kNowhere = std::numeric_limits<int32_t>::max();
  const int32_t place = team.min(z.first_of(largest, kNowhere));
  return {largest, largest > lowest<S>() ? first_arg + place : kNothing};
}

// Bytes: z once.
template <class Held_>
struct MaximumRow {
  using Held = Held_;
  using S = typename Held::S;
  using Row = PairedRow<Held>;

  typename Held::View z;
  S* m;  // [B, T, H]
  int32_t* argmax;

  __device__ typename Row::Fetched fetch(const Team& team, int row, const Turn& turn) const {
    return {team, z, row, turn};
  }
  __device__ void operator()(const Team& team, int row, int token, const Turns<S>& turns,
                             const typename Row::Fetched& fetched) const {
    Row turned(team, z, fetched, turns);
    turned.turn(token, turns);
    const Best<S> best = best_of_row(team, turned, token % turns.steps * turns.K);
    if (!team.leads()) return;
    m[row] = best.m;
    argmax[row] = best.arg;
  }
};

// Bytes: z and the features once.
template <class Held_>
struct FeaturesRow {
  using Held = Held_;
  using S = typename Held::S;
  using Row = PairedRow<Held>;

  S scale;
  typename Held::View z;
  const S* m;  // [B, T, H], or null: the maxima of the tokens
  Result<S> features;
  int32_t* argmax;

  struct Fetched {
    typename Row::Fetched z;
    S m;
  };
  __device__ Fetched fetch(const Team& team, int row, const Turn& turn) const {
    return {{team, z, row, turn}, m != nullptr && team.is_active ? m[row] : S(0)};
  }
  __device__ void operator()(const Team& team, int row, int token, const Turns<S>& turns,
                             const Fetched& fetched) const {
    S largest = fetched.m;
    Row turned(team, z, fetched.z, turns);
    turned.turn(token, turns);
    if (m == nullptr) {
      const Best<S> best = best_of_row(team, turned, token % turns.steps * turns.K);
      if (team.leads()) argmax[row] = best.arg == kNothing ? kFromState : best.arg;
      largest = best.m;
    }
    turned.each([&](int j, S(&v)[Held::W]) {
      for (int w = 0; w < Held::W; ++w) v[w] = scale * precise_exp(v[w] - largest);
      features.put(turns.place(row) + j, v);
    });
  }
};

/// The maxima of a head of one sequence.
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
  __device__ S seen(int64_t n) const { return m0 ? m0[n] : lowest<S>(); }
};

/// The maximum of some tokens, and whether a reset lies among them.
template <class S>
struct Reached {
  Best<S> best;
  int is_cut;
};

/// Later tokens on top of earlier ones: ties stay with the earlier, NaN stays.
template <class S>
__device__ Reached<S> joined(const Reached<S>& before, const Reached<S>& behind) {
  const Best<S>&earlier = before.best, &later = behind.best;
  const int32_t first = earlier.arg == kNothing ? later.arg : earlier.arg;
  if (behind.is_cut != 0) return {{later.m, later.arg == kNothing ? earlier.arg : later.arg}, 1};
  const bool is_raised = later.m > earlier.m;
  return {{larger_or_nan(earlier.m, later.m), is_raised ? later.arg : first}, before.is_cut};
}

/// log rho = m_before - m, but 0 while nothing was seen: -infinity must not enter a sum.
template <class S>
__device__ S log_ratio(S before, S now) {
  return before == lowest<S>() ? S(0) : before - now;
}

/// m_t = max(m_{t-1}, row t), and log rho_t.
template <class S>
__device__ void scan_forward(const Scan<S>& scan, int64_t n) {
  const auto join = [](const Reached<S>& a, const Reached<S>& b) { return joined(a, b); };
  const auto of_token = [&](int64_t t) {
    const int64_t at = scan.at(n, t);
    return Reached<S>{{scan.m[at], scan.argmax[at]}, scan.resets(n, t)};
  };
  const Stretch stretch(scan.steps);
  Reached<S> own = {{lowest<S>(), kNothing}, 0};
#pragma unroll 4
  for (int64_t t = stretch.begin; t < stretch.end; ++t) own = join(own, of_token(t));
  const Reached<S> start = {{scan.seen(n), kFromState}, 0};
  Reached<S> reached = joined_before(start, own, join);
#pragma unroll 4
  for (int64_t t = stretch.begin; t < stretch.end; ++t) {
    const Reached<S> token = of_token(t);
    const S before = reached.best.m;
    reached = join(reached, token);
    const int64_t at = scan.at(n, t);
    scan.m[at] = reached.best.m;
    scan.argmax[at] = reached.best.arg;
    scan.log_rho.put(at, token.is_cut != 0 ? S(0) : log_ratio(before, reached.best.m));
    if (t == scan.steps - 1) scan.last.put(n, reached.best.m);
  }
}

/// Gives all tokens from reset to reset what the last of them has.
template <class S>
__device__ void spread_back(const Scan<S>& scan, int64_t n) {
  // `is_cut`: whether the last token of a sequence is among them, whose maximum it then is.
  const auto join = [](const Reached<S>& a, const Reached<S>& b) { return b.is_cut ? b : a; };
  const auto of_token = [&](int64_t t) {
    const bool is_last = t == scan.steps - 1 || scan.resets(n, t + 1);
    const int64_t at = scan.at(n, t);
    return Reached<S>{{scan.m[at], scan.argmax[at]}, is_last};
  };
  const Stretch stretch(scan.steps, kScanThreads - 1 - static_cast<int>(threadIdx.x));
  Reached<S> own = {{lowest<S>(), kNothing}, 0};
  for (int64_t t = stretch.end - 1; t >= stretch.begin; --t) own = join(own, of_token(t));
  Reached<S> reached = joined_before(Reached<S>{{lowest<S>(), kNothing}, 0}, own, join);
  for (int64_t t = stretch.end - 1; t >= stretch.begin; --t) {
    reached = join(reached, of_token(t));
    const int64_t at = scan.at(n, t);
    scan.m[at] = reached.best.m;
    scan.argmax[at] = reached.best.arg;
    const bool counts = t == 0 && !scan.resets(n, 0);
    scan.log_rho.put(at, counts ? log_ratio(scan.seen(n), reached.best.m) : S(0));
  }
}

template <class S>
__global__ __launch_bounds__(kScanThreads) void scan_maxima(Scan<S> scan) {
  const int64_t n = blockIdx.x;
  scan_forward(scan, n);
  if (!scan.by_sequence) return;
  __syncthreads();
  spread_back(scan, n);
}

template <class Held>
void launch(const SafeExpArgs& args, const SafeExpResult& result, const Turn& turn) {
  using S = typename Held::S;
  const int64_t B = args.z.dim(0), steps = args.z.dim(1), H = args.z.dim(2);
  const typename Held::View z(args.z);
  Tensor places = result.argmax;
  FeaturesRow<Held> features = {static_cast<S>(args.scale), z, nullptr, Result<S>(result.features),
                                places.data<int32_t>()};
  if (args.maximum == Maximum::Token) return for_each_turned_row(turn, features);
  Tensor maxima = Tensor::empty({B, steps, H}, dtype_of<S>, turn.device);
  S* m = maxima.data<S>();
  for_each_turned_row(turn, MaximumRow<Held>{z, m, features.argmax});
  const Scan<S> scan = {.steps = steps,
                        .H = H,
                        .by_sequence = args.maximum == Maximum::Sequence,
                        .reset = args.reset ? args.reset.data<int32_t>() : nullptr,
                        .m0 = Elements<S>(args.m0),
                        .m = m,
                        .argmax = features.argmax,
                        .log_rho = Result<S>(result.log_rho),
                        .last = Result<S>(result.m)};
  scan_maxima<<<static_cast<unsigned>(B * H), kScanThreads, 0, context(turn.device).stream>>>(scan);
  require_launched("safe_exp");
  features.m = m;
  for_each_turned_row(turn, features, true);
}

}  // namespace

void safe_exp(const SafeExpArgs& args, SafeExpResult& result) {
  if (args.z.numel() == 0) return;
  const Turn turn(args.z, args.rotation, false);
  for_sum_type(args.z.dtype(), "safe_exp", [&](auto tag) {
    using S = decltype(tag);
    for_paired_rows<S>(
        turn, [&](auto held) { launch<decltype(held)>(args, result, turn); }, args.z,
        result.features);
  });
}

}  // namespace regla::cuda
