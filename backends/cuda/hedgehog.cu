#include "backends/cuda/kernels.h"
#include "backends/cuda/rows.cuh"

// HedgeHog's features (Zhang et al. 2024), z = W x computed before:
//   separate   y = [softmax(z), softmax(-z)]
//   joint      y = softmax([2z, -2z])
namespace regla::cuda {
namespace {

// Bytes: z and y once.
template <class Loads, int P>
struct HedgehogRow {
  using View = typename Loads::View;
  using S = typename View::S;
  static constexpr int W = Loads::kWidth;

  int64_t N;
  bool joint;
  View z;
  Result<S> y;

  __device__ void operator()(const Team& team, int64_t row) const {
    const HeldRow<S, W, P, View> held(team, z, row * N, N);
    constexpr S kInfinity = std::numeric_limits<S>::infinity();
    const S factor = joint ? S(2) : S(1);
    S largest = -kInfinity, smallest = kInfinity;
    held.each([&](int64_t, const S(&v)[W]) {
      for (int w = 0; w < W; ++w) {
        largest = largest > v[w] ? largest : v[w];
        smallest = smallest < v[w] ? smallest : v[w];
      }
    });
    largest = factor * team.max(largest);
    smallest = factor * team.min(smallest);
    if (joint) {  // one maximum for both halves
      largest = largest > -smallest ? largest : -smallest;
      smallest = -largest;
    }
    S positive = 0, negative = 0;
    held.each([&](int64_t, const S(&v)[W]) {
      for (int w = 0; w < W; ++w) {
        positive += exp(factor * v[w] - largest);
        negative += exp(smallest - factor * v[w]);
      }
    });
    positive = team.sum(positive);
    negative = team.sum(negative);
    const S sum = positive + negative;
    const S up = 1 / (joint ? sum : positive), down = 1 / (joint ? sum : negative);
    held.each([&](int64_t j, const S(&v)[W]) {
      S first[W], second[W];
      for (int w = 0; w < W; ++w) {
        first[w] = exp(factor * v[w] - largest) * up;
        second[w] = exp(smallest - factor * v[w]) * down;
      }
      y.put(row * 2 * N + j, first);
      y.put(row * 2 * N + N + j, second);
    });
  }
};

// A softmax's gradient is y (d - sum y d); z enters with + in the first half and - in the second.
// Bytes: y, d_y and d_z once.
template <class Loads, int P>
struct HedgehogBackwardRow {
  using View = typename Loads::View;
  using S = typename View::S;
  static constexpr int W = Loads::kWidth;

  int64_t N;
  bool joint;
  View y, d_y;
  Result<S> d_z;

  __device__ void operator()(const Team& team, int64_t row) const {
    // As rows of N: the two halves.
    using Row = HeldRow<S, W, P, View>;
    const Row y1(team, y, 2 * row * N, N), y2(team, y, (2 * row + 1) * N, N);
    const Row d1(team, d_y, 2 * row * N, N), d2(team, d_y, (2 * row + 1) * N, N);
    const S first = dot(team, y1, d1), second = dot(team, y2, d2);
    const S s1 = joint ? first + second : first, s2 = joint ? first + second : second;
    const S factor = joint ? S(2) : S(1);
    y1.with(d1, y2, d2,
            [&](int64_t j, const S(&a)[W], const S(&da)[W], const S(&b)[W], const S(&db)[W]) {
              S v[W];
              for (int w = 0; w < W; ++w) {
                v[w] = factor * (a[w] * (da[w] - s1) - b[w] * (db[w] - s2));
              }
              d_z.put(row * N + j, v);
            });
  }

  template <class Row>
  __device__ static S dot(const Team& team, const Row& a, const Row& b) {
    S sum = 0;
    a.with(b, [&](int64_t, const S(&v)[W], const S(&u)[W]) {
      for (int w = 0; w < W; ++w) sum += v[w] * u[w];
    });
    return team.sum(sum);
  }
};

}  // namespace

void hedgehog(const Tensor& z, bool joint, Tensor y) {
  for_sum_type(z.dtype(), "hedgehog", [&](auto tag) {
    using S = decltype(tag);
    const int64_t N = z.dim(-1), R = z.numel() / N;
    for_each_held_row<S>(
        context(y), R, N,
        [&](auto loads, auto held) {
          using Loads = decltype(loads);
          constexpr int P = decltype(held)::value;
          return HedgehogRow<Loads, P>{N, joint, typename Loads::View(z), Result<S>(y)};
        },
        z, y);
  });
}

void hedgehog_backward(const Tensor& y, bool joint, const Tensor& d_y, Sink d_z) {
  if (!d_z) return;
  for_sum_type(y.dtype(), "hedgehog", [&](auto tag) {
    using S = decltype(tag);
    const int64_t N = y.dim(-1) / 2, R = y.numel() / (2 * N);
    for_each_held_row<S>(
        context(y), R, N,
        [&](auto loads, auto held) {
          using Loads = decltype(loads);
          using View = typename Loads::View;
          constexpr int P = decltype(held)::value;
          return HedgehogBackwardRow<Loads, P>{N, joint, View(y), View(d_y), Result<S>(d_z)};
        },
        y, d_y, d_z.tensor);
  });
}

}  // namespace regla::cuda
