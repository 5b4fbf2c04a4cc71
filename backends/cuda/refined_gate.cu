#include "backends/cuda/columns.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/map.cuh"
#include "backends/cuda/refined_gate.cuh"

// The gates: decays always as logs, log sigma(z) and log F of the refined gate, and sigma(z) itself
// for what is no decay.
//   F = (1-r) g^2 + r (1 - (1-g)^2) = g (g + 2r(1-g)),  g = sigma(z_g), r = sigma(z_r)
// (Eq. 16-18)
namespace regla::cuda {
namespace {

/// d log F / d z_g = (1-g)(1+w) - (1-w) g = (1-g)(2(1-r)w + 1-w)  and
/// d log F / d z_r = (1-w)(1-r), where w is the share of g^2 in F. Only sums of what is positive:
/// nothing cancels as F approaches 1. With w = square / (square + rest), all over one denominator.
template <Digits kDigits>
struct RefinedGateBackward {
  template <class S>
  __device__ Pair<S> operator()(S z_g, S z_r, S d_log_f) const {
    const GateParts<S, kDigits> gate(z_g, z_r);
    const S a1 = 1 + gate.a, b1 = 1 + gate.b;
    const S scale = d_log_f * reciprocal((gate.square + gate.rest) * a1 * b1);
    const S not_g = z_g < 0 ? S(1) : gate.a;  // (1 - g) (1 + a)
    return {scale * not_g * (2 * gate.not_r * gate.square + gate.rest * b1),
            scale * a1 * gate.rest * gate.not_r};
  }
};

/// Both to where they go, and their sums over the rows. Bytes: three tensors read, two written.
template <class View, int W, Digits kDigits>
struct SummedGateGradients {
  using S = typename View::S;
  static constexpr int kWidth = W;
  static constexpr int kTogether = 2, kBlocks = 3;  // it computes more than it waits

  View z_g, z_r, d_log_f;
  RowsResult<S> d_z_g, d_z_r;
  int64_t columns;

  struct Fetched {
    typename View::template Raw<W> z_g, z_r, d_log_f;
  };
  __device__ int64_t place(int64_t c) const { return c; }
  __device__ Fetched fetch(int64_t r, int64_t c) const {
    Fetched raw;
    z_g.template fetch<W>(r * columns + c, raw.z_g);
    z_r.template fetch<W>(r * columns + c, raw.z_r);
    d_log_f.template fetch<W>(r * columns + c, raw.d_log_f);
    return raw;
  }
  __device__ void add(int64_t r, int64_t c, const Fetched& raw, S (&total)[2][W]) const {
    S g[W], by_r[W], d[W];
    z_g.template unpack<W>(raw.z_g, g);
    z_r.template unpack<W>(raw.z_r, by_r);
    d_log_f.template unpack<W>(raw.d_log_f, d);
#pragma unroll
    for (int w = 0; w < W; ++w) {
      const Pair<S> both = RefinedGateBackward<kDigits>{}(g[w], by_r[w], d[w]);
      total[0][w] += g[w] = both.first;
      total[1][w] += by_r[w] = both.second;
    }
    if (d_z_g) d_z_g.put(r, c, g);
    if (d_z_r) d_z_r.put(r, c, by_r);
  }
};

struct Sigmoid {
  template <class S>
  __device__ S operator()(S z) const {
    return precise_sigmoid(z);
  }
};

// From z, not from y: 1 - y has no digits left where y is near 1.
struct SigmoidBackward {
  template <class S>
  __device__ S operator()(S z, S d_y) const {
    return d_y * (precise_sigmoid(z) * precise_sigmoid(-z));
  }
};

/// ln sigmoid(z) = min(z, 0) - ln(1 + e^-|z|)
struct LogSigmoid {
  template <class S>
  __device__ S operator()(S z) const {
    return (z < 0 ? z : S(0)) - precise_log_without(-precise_exp(z < 0 ? z : -z), S(1));
  }
};

struct LogSigmoidBackward {
  template <class S>
  __device__ S operator()(S z, S d_y) const {
    return d_y * precise_sigmoid(-z);
  }
};

}  // namespace

void sigmoid(const Tensor& z, Tensor y) {
  for_sum_type(z.dtype(), "sigmoid", [&](auto tag) { map<decltype(tag)>(Sigmoid{}, Sink{y}, z); });
}

void sigmoid_backward(const Tensor& z, const Tensor& d_y, Sink d_z) {
  for_sum_type(z.dtype(), "sigmoid",
               [&](auto tag) { map<decltype(tag)>(SigmoidBackward{}, d_z, z, d_y); });
}

void log_sigmoid(const Tensor& z, Tensor y) {
  for_sum_type(z.dtype(), "log_sigmoid",
               [&](auto tag) { map<decltype(tag)>(LogSigmoid{}, Sink{y}, z); });
}

void log_sigmoid_backward(const Tensor& z, const Tensor& d_y, Sink d_z) {
  for_sum_type(z.dtype(), "log_sigmoid",
               [&](auto tag) { map<decltype(tag)>(LogSigmoidBackward{}, d_z, z, d_y); });
}

void refined_gate(const Tensor& z_g, const Tensor& z_r, Tensor log_f) {
  if (log_f.dtype() == DType::BF16) {
    return map<float>(LogRefinedGate<Digits::Few>{}, Sink{log_f}, z_g, z_r);
  }
  for_sum_type(z_g.dtype(), "refined_gate",
               [&](auto tag) { map<decltype(tag)>(LogRefinedGate<>{}, Sink{log_f}, z_g, z_r); });
}

void refined_gate_backward(const Tensor& z_g, const Tensor& z_r, const Tensor& d_log_f,
                           const LinearSink& d_z_g, const LinearSink& d_z_r) {
  const int64_t N = z_g.rank() == 0 ? 1 : z_g.dim(-1), R = N == 0 ? 0 : z_g.numel() / N;
  const Sink &to_g = d_z_g.rows.matrix, &to_r = d_z_r.rows.matrix;
  for_sum_type(z_g.dtype(), "refined_gate", [&](auto tag) {
    using S = decltype(tag);
    if (is_plain(d_z_g, N) && is_plain(d_z_r, N)) {
      return map_pair<S>(RefinedGateBackward<Digits::All>{}, to_g, to_r, z_g, z_r, d_log_f);
    }
    const auto run = [&](auto gradients_of) {
      using F = typename decltype(gradients_of)::type;
      using View = decltype(F::z_g);
      sum_columns<F::kWidth>(context(z_g), R, N,
                             F{View(z_g), View(z_r), View(d_log_f), RowsResult<S>(d_z_g.rows),
                               RowsResult<S>(d_z_r.rows), N},
                             ColumnSums<S, 2>{{Result<S>(d_z_g.sums), Result<S>(d_z_r.sums)}});
    };
    for_width<S>(
        N,
        [&](auto width) {
          const bool are_narrow = z_g.dtype() == DType::BF16 && z_r.dtype() == DType::BF16 &&
                                  d_log_f.dtype() == DType::BF16;
          constexpr int W = decltype(width)::value;
          if constexpr (W == kWide) {
            using Narrow = SummedGateGradients<Typed<__nv_bfloat16>, W, Digits::Few>;
            if (are_narrow) return run(std::type_identity<Narrow>{});
          }
          run(std::type_identity<SummedGateGradients<Elements<S>, W, Digits::All>>{});
        },
        z_g, z_r, d_log_f, to_g.tensor, to_r.tensor);
  });
}

}  // namespace regla::cuda
