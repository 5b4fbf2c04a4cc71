#include <limits>

#include "backends/cuda/columns.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/rotation.cuh"
#include "backends/cuda/scan.cuh"

// The backward pass of safe_exp.cu, through the maxima too: what was turned gets
//   d_z_t[i] = d_features_t[i] features_t[i] + (what its element is owed as a maximum),
// which is turned back. A token's own maximum is owed minus the sum of its row. A maximum that goes
// on is owed by all tokens that have it: a scan of the sums of rows along time, a block per head,
// finds that and writes the few elements anew that are owed something.
namespace regla::cuda {
namespace {

constexpr int32_t kFromState = -1;

/// Features and their gradients of a row, as they lie in memory.
template <class Held>
struct FetchedRows {
  typename PairedRow<Held>::Fetched features, d_features;
};

/// Both tensors, of which the gradients may be undefined: zeros.
template <class Held>
struct FeaturesAndGradients {
  using S = typename Held::S;
  using Row = PairedRow<Held>;

  typename Held::View features, d_features;

  __device__ FetchedRows<Held> fetch(const Team& team, int row, const Turn& turn) const {
    if (!d_features) return {{team, features, row, turn}, {}};
    return {{team, features, row, turn}, {team, d_features, row, turn}};
  }
  /// d_features * features of a thread; `sum` is theirs.
  __device__ Row multiplied(const Team& team, const FetchedRows<Held>& fetched, const Turn& turn,
                            S& sum) const {
    Row product(team, features, fetched.features, turn);
    sum = 0;
    if (d_features) {
      Row d(team, d_features, fetched.d_features, turn);
      product.with(d, [&](int, S(&f)[Held::W], const S(&g)[Held::W]) {
        for (int w = 0; w < Held::W; ++w) sum += f[w] *= g[w];
      });
    } else {
      product.each([&](int, S(&f)[Held::W]) {
        for (int w = 0; w < Held::W; ++w) f[w] = 0;
      });
    }
    return product;
  }
};

// Bytes: features, d_features and d_z once.
template <class Held_>
struct GradientRow {
  using Held = Held_;
  using S = typename Held::S;

  FeaturesAndGradients<Held> in;
  const int32_t* argmax;  // [B, T, H], of maxima that are the tokens' own; or null
  S* sums;                // [B, T, H]: out, where they are not
  RowsResult<S> d_z;      // of all heads of a token

  struct Fetched {
    FetchedRows<Held> in;
    int32_t argmax;
  };
  __device__ Fetched fetch(const Team& team, int row, const Turn& turn) const {
    return {in.fetch(team, row, turn), argmax != nullptr && team.is_active ? argmax[row] : -1};
  }
  __device__ void operator()(const Team& team, int row, int token, const Turns<S>& turns,
                             const Fetched& fetched) const {
    const int place = fetched.argmax - token % turns.steps * turns.K;
    S sum;
    PairedRow<Held> d = in.multiplied(team, fetched.in, turns, sum);
    sum = team.sum(sum);
    if (argmax == nullptr) {
      if (team.leads()) sums[row] = sum;
    } else if (place >= 0 && place < turns.K) {
      d.each([&](int j, S(&v)[Held::W]) {
        for (int w = 0; w < Held::W; ++w) v[w] -= j + w == place ? sum : S(0);
      });
    }
    d.turn(token, turns);
    const int head = (row - token * turns.H) * turns.K;
    d.each([&](int j, const S(&v)[Held::W]) { d_z.put(token, head + j, v); });
  }
};

/// An element that is owed something, and what turns with it.
template <class Held>
struct OwedElement {
  using S = typename Held::S;

  FeaturesAndGradients<Held> in;
  RowsResult<S> d_z;
  bool adds;  // to d_z, where the rest of the gradient is already

  /// What GradientRow wrote.
  __device__ S without(int64_t i) const {
    return adds || !in.d_features ? S(0) : in.features[i] * in.d_features[i];
  }
  __device__ void put(int64_t token, int64_t c, S v) const {
    const S values[1] = {v};
    d_z.put(token, c, values);
  }
  __device__ void pay(const Turn& turn, int64_t token, int64_t head, int place, S amount) const {
    const int64_t first = head * turn.K, row = token * turn.H * turn.K + first;
    if (place >= 2 * turn.half) return put(token, first + place, without(row + place) + amount);
    const int low = place % turn.half, high = low + turn.half;
    const S a = without(row + low) + (place == low ? amount : S(0));
    const S b = without(row + high) + (place == high ? amount : S(0));
    S sine, cosine;
    sin_cos_of(turn.frequency(low) * turn.positions[token], sine, cosine);
    if (turn.inverse) sine = -sine;
    put(token, first + low, a * cosine - b * sine);
    put(token, first + high, b * cosine + a * sine);
  }
};

/// What the maxima of a head owe.
template <class Held>
struct Debts {
  using S = typename Held::S;

  Turn turn;
  int64_t steps, H;
  const int32_t* reset;   // [B, T] or null
  const int32_t* argmax;  // [B, T, H]
  const S* sums;          // [B, T, H]
  Elements<S> m0;         // [B, H] or null
  Elements<S> d_log_rho;  // [B, T, H] or null
  Elements<S> d_m;        // [B, H] or null
  OwedElement<Held> owed;
  Result<S> d_m0;  // added to; may be null

  __device__ int64_t at(int64_t n, int64_t t) const { return (n / H * steps + t) * H + n % H; }

  /// log rho_t = m_{t-1} - m_t counts only where the maximum changed hands; elsewhere both terms
  /// meet in the same element and cancel.
  __device__ S d_rho(int64_t n, int64_t t) const {
    if (!d_log_rho || t >= steps) return 0;
    if (reset != nullptr && reset[n / H * steps + t] != 0) return 0;
    if (t == 0 && !(m0 && m0[n] != -std::numeric_limits<S>::infinity())) return 0;
    const int32_t before = t == 0 ? kFromState : argmax[at(n, t - 1)];
    return argmax[at(n, t)] == before ? S(0) : d_log_rho[at(n, t)];
  }

  /// What token t adds to the gradient of whatever attains its maximum.
  __device__ S debt(int64_t n, int64_t t) const {
    S debt = d_rho(n, t + 1) - d_rho(n, t) - sums[at(n, t)];
    if (t == steps - 1 && d_m) debt += d_m[n];
    return debt;
  }

  __device__ void pay(int64_t n, int32_t arg, S amount) const {
    if (arg == kFromState) {
      if (d_m0) d_m0.put(n, amount);
    } else {
      owed.pay(turn, n / H * steps + arg / turn.K, n % H, arg % turn.K, amount);
    }
  }
};

/// A sum over the last of some tokens, those whose maximum has one place; whether others are among
/// them.
template <class S>
struct Owed {
  S sum;
  int is_cut;
};

/// A block per head: sums over neighbouring tokens whose maximum has the same place; the last of
/// them pays.
template <class Held>
__global__ __launch_bounds__(kScanThreads) void pay_debts(Debts<Held> debts) {
  using S = typename Held::S;
  const int64_t n = blockIdx.x;
  const auto join = [](const Owed<S>& earlier, const Owed<S>& later) {
    return later.is_cut != 0 ? later : Owed<S>{earlier.sum + later.sum, earlier.is_cut};
  };
  const auto of_token = [&](int64_t t) {
    const int32_t arg = debts.argmax[debts.at(n, t)];
    return Owed<S>{debts.debt(n, t), t > 0 && debts.argmax[debts.at(n, t - 1)] != arg};
  };
  const Stretch stretch(debts.steps);
  Owed<S> own = {0, 0};
#pragma unroll 4
  for (int64_t t = stretch.begin; t < stretch.end; ++t) own = join(own, of_token(t));
  Owed<S> owed = joined_before(Owed<S>{0, 0}, own, join);
#pragma unroll 4
  for (int64_t t = stretch.begin; t < stretch.end; ++t) {
    owed = join(owed, of_token(t));
    const int32_t arg = debts.argmax[debts.at(n, t)];
    const bool ends = t == debts.steps - 1 || debts.argmax[debts.at(n, t + 1)] != arg;
    if (ends) debts.pay(n, arg, owed.sum);
  }
  // log rho_0 takes from m0 what it gives to the first token's maximum: no token has m0 then.
  if (threadIdx.x == 0 && debts.d_m0) {
    const S d = debts.d_rho(n, 0);
    if (d != 0) debts.d_m0.put(n, d);
  }
}

template <class Held>
void launch(const SafeExpArgs& args, const SafeExpResult& result, const Tensor& d_features,
            const Tensor& d_log_rho, const Tensor& d_m, const RowsSink& d_z, const Sink& d_m0) {
  using S = typename Held::S;
  const Turn turn(result.features, args.rotation, true);
  const Shape rows = result.argmax.shape();
  const FeaturesAndGradients<Held> in = {typename Held::View(result.features),
                                         typename Held::View(d_features)};
  const auto* argmax = result.argmax.data<int32_t>();
  const RowsResult<S> to(d_z);
  if (args.maximum == Maximum::Token) {
    return for_each_turned_row(turn, GradientRow<Held>{in, argmax, nullptr, to});
  }
  Tensor sums = Tensor::empty(rows, dtype_of<S>, turn.device);
  for_each_turned_row(turn, GradientRow<Held>{in, nullptr, sums.data<S>(), to});
  const Debts<Held> debts = {.turn = turn,
                             .steps = rows[1],
                             .H = rows[2],
                             .reset = args.reset ? args.reset.data<int32_t>() : nullptr,
                             .argmax = argmax,
                             .sums = sums.data<S>(),
                             .m0 = Elements<S>(args.m0),
                             .d_log_rho = Elements<S>(d_log_rho),
                             .d_m = Elements<S>(d_m),
                             .owed = {in, to, d_z.matrix.accumulate},
                             .d_m0 = Result<S>(Sink{d_m0.tensor, true})};
  const auto heads = static_cast<unsigned>(rows[0] * rows[2]);
  pay_debts<<<heads, kScanThreads, 0, context(turn.device).stream>>>(debts);
  require_launched("safe_exp_backward");
}

}  // namespace

void safe_exp_backward(const SafeExpArgs& args, const SafeExpResult& result,
                       const Tensor& d_features, const Tensor& d_log_rho, const Tensor& d_m,
                       const RowsSink& d_z, Sink d_m0) {
  if (d_m0 && !d_m0.accumulate) d_m0.tensor.fill(0);
  if (result.features.numel() == 0) return;
  const Turn turn(result.features, args.rotation, true);
  for_sum_type(result.features.dtype(), "safe_exp", [&](auto tag) {
    using S = decltype(tag);
    for_paired_rows<S>(
        turn,
        [&](auto held) {
          launch<decltype(held)>(args, result, d_features, d_log_rho, d_m, d_z, d_m0);
        },
        result.features, d_features, d_z.matrix.tensor);
  });
}

}  // namespace regla::cuda
