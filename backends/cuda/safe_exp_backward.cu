#include "backends/cuda/kernels.h"
#include "backends/cuda/rows.cuh"

// The backward pass of safe_exp.cu, through the maxima too.
namespace regla::cuda {
namespace {

constexpr int32_t kFromState = -1;
constexpr unsigned kAll = 0xffffffffu;
constexpr int kWarps = 4;

// d_z = d_features * features, and its sum per row. Bytes: both, and d_z, once.
template <class S, int W>
struct ProductsRow {
  int64_t K;
  Elements<S> features, d_features;  // d_features may be null: zeros
  Result<S> d_z;
  S* sums;  // [B, T, H]

  __device__ void operator()(const Team& team, int64_t row) const {
    S sum = 0;
    team.each<W>(K, [&](int64_t j) {
      S f[W], d[W] = {};
      features.load(row * K + j, f);
      if (d_features) d_features.load(row * K + j, d);
      for (int w = 0; w < W; ++w) {
        d[w] = d_features ? d[w] * f[w] : S(0);
        sum += d[w];
      }
      d_z.put(row * K + j, d);
    });
    sum = team.sum(sum);
    if (team.leads()) sums[row] = sum;
  }
};

/// What the maxima of a head owe.
template <class S>
struct Debts {
  int64_t steps, H, K;
  bool has_maxima;        // whether they go on from token to token
  const int32_t* reset;   // [B, T] or null
  const int32_t* argmax;  // [B, T, H]
  const S* sums;          // [B, T, H]
  Elements<S> m0;         // [B, H] or null
  Elements<S> d_log_rho;  // [B, T, H] or null
  Elements<S> d_m;        // [B, H] or null
  Result<S> d_z, d_m0;    // added to; d_m0 may be null

  __device__ int64_t at(int64_t n, int64_t t) const { return (n / H * steps + t) * H + n % H; }

  /// log rho_t = m_{t-1} - m_t counts only where the maximum changed hands; elsewhere both terms
  /// meet in the same element and cancel.
  __device__ S d_rho(int64_t n, int64_t t) const {
    if (!d_log_rho || !has_maxima || t >= steps) return 0;
    if (reset != nullptr && reset[n / H * steps + t] != 0) return 0;
    if (t == 0 && !(m0 && m0[n] != -std::numeric_limits<S>::infinity())) return 0;
    const int32_t before = t == 0 ? kFromState : argmax[at(n, t - 1)];
    return argmax[at(n, t)] == before ? S(0) : d_log_rho[at(n, t)];
  }

  /// What token t adds to the gradient of whatever attains its maximum.
  __device__ S debt(int64_t n, int64_t t) const {
    S debt = d_rho(n, t + 1) - d_rho(n, t) - sums[at(n, t)];
    if (t == steps - 1 && has_maxima && d_m) debt += d_m[n];
    return debt;
  }

  __device__ void pay(int64_t n, int32_t arg, S amount) const {
    if (arg == kFromState) {
      if (d_m0) d_m0.put(n, amount);
    } else {
      d_z.put(at(n, arg / K) * K + arg % K, amount);
    }
  }
};

/// One warp per head: sums over neighbouring tokens whose maximum has the same place, 32 tokens at
/// a time; the last of them pays.
template <class S>
__global__ void pay_debts(int64_t heads, Debts<S> debts) {
  const int64_t n = int64_t{blockIdx.x} * kWarps + threadIdx.y;
  if (n >= heads) return;
  const int lane = static_cast<int>(threadIdx.x);
  S carried = 0;
  for (int64_t first = 0; first < debts.steps; first += 32) {
    const int64_t t = first + lane;
    const bool exists = t < debts.steps;
    const int32_t arg = exists ? debts.argmax[debts.at(n, t)] : 0;
    const bool starts = exists && t > 0 && debts.argmax[debts.at(n, t - 1)] != arg;
    S sum = exists ? debts.debt(n, t) : S(0);
    int is_cut = starts;
    for (int offset = 1; offset < 32; offset *= 2) {
      const S earlier = __shfl_up_sync(kAll, sum, offset);
      const int earlier_cut = __shfl_up_sync(kAll, is_cut, offset);
      if (lane < offset) continue;
      if (is_cut == 0) sum += earlier;
      is_cut = is_cut | earlier_cut;
    }
    if (is_cut == 0) sum += carried;
    const bool ends = exists && (t == debts.steps - 1 || debts.argmax[debts.at(n, t + 1)] != arg);
    if (ends) debts.pay(n, arg, sum);
    carried = __shfl_sync(kAll, sum, 31);
  }
  // log rho_0 takes from m0 what it gives to the first token's maximum: no token has m0 then.
  if (lane == 0 && debts.d_m0) {
    const S d = debts.d_rho(n, 0);
    if (d != 0) debts.d_m0.put(n, d);
  }
}

template <class S>
void launch(const SafeExpArgs& args, const SafeExpResult& result, const Tensor& d_features,
            const Tensor& d_log_rho, const Tensor& d_m, const Sink& d_z, const Sink& d_m0) {
  const Tensor& like = result.features;
  const Context& on = context(like);
  const int64_t B = like.dim(0), steps = like.dim(1), H = like.dim(2), K = like.dim(3);
  Tensor scratch = Tensor::empty({B, steps, H}, dtype_of<S>, on.device);
  S* sums = scratch.data<S>();
  for_width<S>(
      K,
      [&](auto width) {
        constexpr int W = decltype(width)::value;
        for_each_row<W>(
            on, B * steps * H, K,
            ProductsRow<S, W>{K, Elements<S>(like), Elements<S>(d_features), Result<S>(d_z), sums});
      },
      like, d_features, d_z.tensor);
  const Debts<S> debts = {.steps = steps,
                          .H = H,
                          .K = K,
                          .has_maxima = args.maximum != Maximum::Token,
                          .reset = args.reset ? args.reset.data<int32_t>() : nullptr,
                          .argmax = result.argmax.data<int32_t>(),
                          .sums = sums,
                          .m0 = Elements<S>(args.m0),
                          .d_log_rho = Elements<S>(d_log_rho),
                          .d_m = Elements<S>(d_m),
                          .d_z = Result<S>(Sink{d_z.tensor, true}),
                          .d_m0 = Result<S>(Sink{d_m0.tensor, true})};
  const auto blocks = static_cast<unsigned>((B * H + kWarps - 1) / kWarps);
  pay_debts<<<blocks, dim3(32, kWarps), 0, on.stream>>>(B * H, debts);
  require_launched("safe_exp_backward");
}

}  // namespace

void safe_exp_backward(const SafeExpArgs& args, const SafeExpResult& result,
                       const Tensor& d_features, const Tensor& d_log_rho, const Tensor& d_m,
                       Sink d_z, Sink d_m0) {
  if (d_m0 && !d_m0.accumulate) d_m0.tensor.fill(0);
  if (result.features.numel() == 0) return;
  for_sum_type(result.features.dtype(), "safe_exp", [&](auto tag) {
    launch<decltype(tag)>(args, result, d_features, d_log_rho, d_m, d_z, d_m0);
  });
}

}  // namespace regla::cuda
