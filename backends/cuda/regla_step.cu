#include <algorithm>
#include <limits>

#include "backends/cuda/chained.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/precise_math.cuh"
#include "backends/cuda/refined_gate.cuh"
#include "backends/cuda/rotation.cuh"
#include "backends/step.h"

// A token of ReGLA in one launch: a block has a head of a sequence. Its state is asked for first;
// while it comes, one warp makes the query's features, one the key's with the maximum, and the
// others the decays. A thread has four columns of every kRowGroups-th row of the state; sums over
// rows are added in order. Bytes: the state twice.
namespace regla::cuda {
namespace {

constexpr int kThreadsOfHead = 256, kMostFeatures = 256;
constexpr float kNothing = -std::numeric_limits<float>::infinity();  // a maximum of no numbers
constexpr int kHeld = 4;  // rows of a thread that are asked for before all else

struct ReglaStep {
  int H, K, V, half;
  Elements<float> z_q, z_k, v, z_g, z_r, z_o;
  const int32_t* positions;  // [B]
  double step;               // of frequencies: rotation.cuh
  float scale, epsilon;
  const float* gain;
  bool center;
  float *m, *state;
  Result<float> y;
};

__device__ float over_warp(float x, float (*join)(float, float)) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    x = join(x, __shfl_xor_sync(0xffffffffu, x, offset));
  }
  return x;
}
__device__ float larger(float a, float b) { return larger_or_nan(a, b); }
__device__ float plus(float a, float b) { return a + b; }

/// The row of a head, turned, in `to`, by one warp; its maximum on every lane.
__device__ float turned_row(const ReglaStep& s, const Elements<float>& z, int n,
                            const double* frequencies, float* to) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t first = int64_t{n} * s.K;
  float largest = kNothing;
  const double position = s.half > 0 ? s.positions[n / s.H] : 0;
  for (int i = lane; i < s.K; i += 32) {
    float x = z[first + i];
    if (i < 2 * s.half) {
      const int pair = i < s.half ? i : i - s.half;
      const float other = z[first + (i < s.half ? i + s.half : pair)];
      float sine, cosine;
      sin_cos_of(frequencies[pair] * position, sine, cosine);
      x = i < s.half ? x * cosine - other * sine : x * cosine + other * sine;
    }
    to[i] = x;
    largest = larger_or_nan(largest, x);
  }
  return over_warp(largest, larger);
}

/// q, k, the factors of the value columns and the factor that the maximum brings.
struct TokenOfHead {
  double frequencies[kMostFeatures / 2];
  float q[kMostFeatures], k[kMostFeatures], u[kMostFeatures], f[kMostFeatures], rho;
};

__device__ void make_features(const ReglaStep& s, int n, TokenOfHead& token) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  if (warp == 0) {
    const float largest = turned_row(s, s.z_q, n, token.frequencies, token.q);
    for (int i = lane; i < s.K; i += 32) token.q[i] = s.scale * precise_exp(token.q[i] - largest);
  } else if (warp == 1) {
    const float before = s.m[n];
    const float now = larger_or_nan(before, turned_row(s, s.z_k, n, token.frequencies, token.k));
    for (int i = lane; i < s.K; i += 32) token.k[i] = precise_exp(token.k[i] - now);
    __syncwarp();
    if (lane == 0) {
      // Nothing was seen before: the state is 0.
      const bool is_first = before == kNothing;
      token.rho = is_first ? 1 : precise_exp(before - now);
      s.m[n] = now;
    }
  } else {
    for (int j = static_cast<int>(threadIdx.x) - 64; j < s.V; j += kThreadsOfHead - 64) {
      const int64_t at = int64_t{n} * s.V + j;
      token.u[j] = s.v[at];
      token.f[j] = precise_exp(LogRefinedGate<>{}(s.z_g[at], s.z_r[at]));
    }
  }
}

/// o -> y: the norm of a head, by the gain, and the output gate. Column j on thread j.
__device__ void finish_head(const ReglaStep& s, int n, const float* o) {
  const int lane = static_cast<int>(threadIdx.x) % 32, h = n % s.H;
  const auto mean_of = [&](auto f) {
    float sum = 0;
    for (int j = lane; j < s.V; j += 32) sum += f(o[j]);
    return over_warp(sum, plus) / static_cast<float>(s.V);
  };
  float mean = 0, inverse = 1;
  if (s.gain != nullptr) {
    if (s.center) mean = mean_of([](float x) { return x; });
    inverse = rsqrtf(mean_of([&](float x) { return (x - mean) * (x - mean); }) + s.epsilon);
  }
  for (int j = static_cast<int>(threadIdx.x); j < s.V; j += kThreadsOfHead) {
    const int64_t at = int64_t{n} * s.V + j;
    float y = (o[j] - mean) * inverse;
    if (s.gain != nullptr) y *= s.gain[h * s.V + j];
    if (s.z_o) y *= s.z_o[at] * precise_sigmoid(s.z_o[at]);
    s.y.put(at, y);
  }
}

__global__ __launch_bounds__(kThreadsOfHead) void step_head(ReglaStep s) {
  __shared__ TokenOfHead token;
  __shared__ __align__(16) float sums[kThreadsOfHead * 4];
  __shared__ float o[kMostFeatures];
  let_next_begin();
  const int n = static_cast<int>(blockIdx.x), columns = s.V / 4, groups = kThreadsOfHead / columns;
  const int group = static_cast<int>(threadIdx.x) / columns;
  const int j = static_cast<int>(threadIdx.x) % columns * 4;
  auto* const state = s.state + int64_t{n} * s.K * s.V + j;
  const bool is_busy = group < groups;
  for (int i = static_cast<int>(threadIdx.x); i < s.half; i += kThreadsOfHead) {
    token.frequencies[i] = exp2(i * s.step);
  }
  __syncthreads();
  await_before();
  float4 held[kHeld];
#pragma unroll
  for (int a = 0; a < kHeld; ++a) {
    const int i = group + a * groups;
    if (is_busy && i < s.K) held[a] = *reinterpret_cast<const float4*>(state + i * s.V);
  }
  make_features(s, n, token);
  __syncthreads();
  float4 sum = make_float4(0, 0, 0, 0);
  const auto move = [&](int i, float4 x) {
    const float k = token.k[i], q = token.q[i], rho = token.rho;
    x.x = rho * token.f[j] * x.x + k * token.u[j];
    x.y = rho * token.f[j + 1] * x.y + k * token.u[j + 1];
    x.z = rho * token.f[j + 2] * x.z + k * token.u[j + 2];
    x.w = rho * token.f[j + 3] * x.w + k * token.u[j + 3];
    *reinterpret_cast<float4*>(state + i * s.V) = x;
    sum.x += q * x.x;
    sum.y += q * x.y;
    sum.z += q * x.z;
    sum.w += q * x.w;
  };
  if (is_busy) {
#pragma unroll
    for (int a = 0; a < kHeld; ++a) {
      if (group + a * groups < s.K) move(group + a * groups, held[a]);
    }
    for (int i = group + kHeld * groups; i < s.K; i += groups) {
      move(i, *reinterpret_cast<const float4*>(state + i * s.V));
    }
    *reinterpret_cast<float4*>(sums + group * s.V + j) = sum;
  }
  __syncthreads();
  for (int c = static_cast<int>(threadIdx.x); c < s.V; c += kThreadsOfHead) {
    float all = 0;
    for (int g = 0; g < groups; ++g) all += sums[g * s.V + c];
    o[c] = all;
  }
  __syncthreads();
  finish_head(s, n, o);
}

}  // namespace

void regla_step(const ReglaStepArgs& args, Tensor y) {
  const int64_t B = args.z_q.dim(0), H = args.z_q.dim(2), K = args.z_q.dim(3), V = args.v.dim(3);
  const bool fits = K > 0 && K <= kMostFeatures && V > 0 && V <= kMostFeatures && V % 4 == 0;
  if (args.z_q.dtype() == DType::F64 || !fits) return regla_step_by_parts(args, y);
  if (B * H == 0) return;
  Tensor m = args.m, state = args.state;
  const int64_t half = args.rotation.turns() ? args.rotation.rotary / 2 : 0;
  const ReglaStep step = {
      .H = static_cast<int>(H),
      .K = static_cast<int>(K),
      .V = static_cast<int>(V),
      .half = static_cast<int>(half),
      .z_q = Elements<float>(args.z_q),
      .z_k = Elements<float>(args.z_k),
      .v = Elements<float>(args.v),
      .z_g = Elements<float>(args.z_g),
      .z_r = Elements<float>(args.z_r),
      .z_o = Elements<float>(args.z_o),
      .positions = half > 0 ? args.rotation.positions.data<int32_t>() : nullptr,
      .step = half > 0 ? -std::log2(args.rotation.base) / static_cast<double>(half) : 0,
      .scale = static_cast<float>(args.scale),
      .epsilon = static_cast<float>(args.epsilon),
      .gain = args.gain ? args.gain.data<float>() : nullptr,
      .center = args.center,
      .m = m.data<float>(),
      .state = state.data<float>(),
      .y = Result<float>(y)};
  launch_chained(context(y), step_head, dim3(static_cast<unsigned>(B * H)), kThreadsOfHead, 0,
                 step);
}

}  // namespace regla::cuda
