#include "backends/adamw.h"
#include "backends/cuda/elements.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/listed.cuh"

namespace regla::cuda {
namespace {

/// What an update needs of a weight.
struct Weight {
  void *value, *m, *v;
  const void* gradient;
  BFloat16* copy;
  int64_t elements;
  double decay;
  bool is_aligned;  // kWide elements of each may be loaded at once
};

Weight weight_of(const AdamWArgs::Weight& from) {
  Tensor value = from.value, m = from.m, v = from.v, gradient = from.gradient, copy = from.copy;
  return {.value = value.raw(),
          .m = m.raw(),
          .v = v.raw(),
          .gradient = gradient.raw(),
          .copy = copy ? copy.data<BFloat16>() : nullptr,
          .elements = value.numel(),
          .decay = from.decay,
          .is_aligned = value.dtype() == DType::F32 && are_aligned(value, m, v, gradient, copy)};
}

/// Elements [i, i + W).
template <int W, class T>
__device__ void update(const Weight& weight, const AdamWNumbers<T>& n, int64_t i) {
  const Elements<T> values(weight.value, false), firsts(weight.m, false), seconds(weight.v, false),
      gradients(weight.gradient, false);
  T w[W], m[W], v[W], g[W];
  values.load(i, w);
  firsts.load(i, m);
  seconds.load(i, v);
  gradients.load(i, g);
  const T decay = static_cast<T>(weight.decay);
#pragma unroll
  for (int j = 0; j < W; ++j) {
    const T scaled = n.scale * g[j];
    m[j] = n.beta1 * m[j] + (1 - n.beta1) * scaled;
    v[j] = n.beta2 * v[j] + (1 - n.beta2) * scaled * scaled;
    w[j] -= n.rate * (m[j] * n.unbias1 / (sqrt(v[j] * n.unbias2) + n.epsilon) + decay * w[j]);
  }
  Result<T>(weight.value, false).put(i, w);
  Result<T>(weight.m, false).put(i, m);
  Result<T>(weight.v, false).put(i, v);
  if (weight.copy == nullptr) return;
  if constexpr (std::is_same_v<T, float>) {
    Result<T>(weight.copy, true).put(i, w);
  } else {
    for (int j = 0; j < W; ++j) weight.copy[i + j] = static_cast<BFloat16>(w[j]);
  }
}

// Bytes: value, m and v twice, gradient and copy once: 30 an element with a copy, else 28.
template <class T>
__global__ __launch_bounds__(kThreads) void update_all(const __grid_constant__ Listed<Weight> list,
                                                       AdamWSettings settings) {
  if (settings.factor[0] == 0) return;
  const int which = list.owner(blockIdx.x);
  const Weight& weight = list.at[which];
  const AdamWNumbers<T> numbers(settings);
  const int64_t begin = int64_t{blockIdx.x - list.first[which]} * kPiece;
  const int64_t end = begin + kPiece < weight.elements ? begin + kPiece : weight.elements;
  int64_t rest = begin;
  if constexpr (std::is_same_v<T, float>) {
    if (weight.is_aligned) {
      rest = end / kWide * kWide;
#pragma unroll 2
      for (int64_t i = begin + threadIdx.x * kWide; i < rest; i += kThreads * kWide) {
        update<kWide>(weight, numbers, i);
      }
    }
  }
  for (int64_t i = rest + threadIdx.x; i < end; i += kThreads) update<1>(weight, numbers, i);
}

template <class T>
void update_weights(const Context& on, const AdamWArgs& args) {
  const auto& weights = args.weights;
  for_lists<Weight>(
      weights.size(), [&](size_t i) { return weight_of(weights[i]); },
      [&](size_t i) { return weights[i].value.numel(); },
      [&](const Listed<Weight>& list, size_t) {
        if (list.pieces() == 0) return;
        update_all<T><<<list.pieces(), kThreads, 0, on.stream>>>(list, AdamWSettings(args));
        require_launched("adamw");
      });
}

}  // namespace

void adamw(const AdamWArgs& args) {
  if (args.weights.empty()) return;
  for_float_type(args.weights[0].value.dtype(), "adamw",
                 [&](auto tag) { update_weights<decltype(tag)>(context(args.factor), args); });
}

}  // namespace regla::cuda
