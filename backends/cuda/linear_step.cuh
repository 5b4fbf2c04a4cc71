#pragma once

#include <cstdint>

#include "backends/cuda/block.cuh"
#include "backends/cuda/context.h"
#include "backends/cuda/elements.cuh"
#include "backends/cuda/gelu.cuh"
#include "backends/kernels.h"

namespace regla::cuda {

constexpr size_t kMostStepParts = 8;

/// LinearStepArgs as kernels read them: the weights one below the other.
struct StepProduct {
  struct Part {
    const void* weight;
    Elements<float> bias;
    Result<float> y;
    int first;  // its first row among all
  };
  int R, D, N = 0, count = 0;
  const void* x;
  const float *gain, *norm_bias, *residual;
  float epsilon;
  bool narrows;  // what the norm gives is rounded
  Activation activation;
  Part parts[kMostStepParts] = {};

  __device__ const Part& owner(int n) const {
    int part = count - 1;
    while (part > 0 && n < parts[part].first) --part;
    return parts[part];
  }
  __device__ const char* row(int n, int row_bytes) const {
    const Part& part = owner(n);
    return static_cast<const char*>(part.weight) + int64_t{n - part.first} * row_bytes;
  }

  /// What is added to row n of the weights times row r of x, asked for before that is known.
  struct Addends {
    const Part* part;
    int64_t place;
    float bias, residual;
  };
  __device__ Addends addends(int r, int n) const {
    const Part& part = owner(n);
    const int own = n - part.first;
    const int next = &part == &parts[count - 1] ? N : (&part + 1)->first;
    const int64_t place = int64_t{r} * (next - part.first) + own;
    return {&part, place, part.bias ? part.bias[own] : 0,
            residual != nullptr ? residual[place] : 0};
  }

  /// That product comes to `sum`.
  __device__ void put(float sum, const Addends& to) const {
    sum += to.bias;
    if (activation == Activation::Gelu) sum = Gelu{}(sum);
    if (activation == Activation::TanhGelu) sum = TanhGelu{}(sum);
    to.part->y.put(to.place, sum + to.residual);
  }
};

/// W's elements in 16 bytes.
template <class W>
constexpr int kPieceOf = 16 / static_cast<int>(sizeof(W));

/// A weight's piece, which nobody needs a second time.
__device__ inline uint4 streamed_piece(const void* place, bool is_there) {
  uint4 v = make_uint4(0, 0, 0, 0);
  if (is_there) {
    asm volatile("ld.global.L1::no_allocate.v4.b32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(place));
  }
  return v;
}

/// Gain and bias of P neighbours.
template <int P>
struct Affine {
  float gain[P], bias[P];

  __device__ void load(const StepProduct& step, int k) {
#pragma unroll
    for (int at = 0; at < P; at += 4) {
      const float4 none = make_float4(0, 0, 0, 0);
      const bool exists = k < step.D, is_moved = exists && step.norm_bias != nullptr;
      const float4 g = exists ? *reinterpret_cast<const float4*>(step.gain + k + at) : none;
      const float4 b = is_moved ? *reinterpret_cast<const float4*>(step.norm_bias + k + at) : none;
      gain[at] = g.x, gain[at + 1] = g.y, gain[at + 2] = g.z, gain[at + 3] = g.w;
      bias[at] = b.x, bias[at + 1] = b.y, bias[at + 2] = b.z, bias[at + 3] = b.w;
    }
  }
};

/// A number of x', which the norm gives: rounded where activations are narrow.
__device__ inline float normed(const StepProduct& step, float x, float mean, float inverse,
                               float gain, float bias) {
  const float y = (x - mean) * inverse * gain + bias;
  return step.narrows ? __bfloat162float(__float2bfloat16_rn(y)) : y;
}

/// A long row of x as a warp reads it, P neighbours a lane: pieces c = 0, 1, ... begin at place(c).
template <class X, int P>
class StepRow {
 public:
  __device__ StepRow(const StepProduct& step, int row)
      : step_(step), from_(static_cast<const X*>(step.x) + int64_t{row} * step.D) {}

  __device__ static int place(int c) { return (c * 32 + static_cast<int>(threadIdx.x) % 32) * P; }

  /// Mean and deviation first, where there is a norm.
  __device__ void measure() {
    if (step_.gain == nullptr) return;
    const auto share = 1 / static_cast<float>(step_.D);
    mean_ = sum_of([](float x) { return x; }) * share;
    inverse_ =
        rsqrtf(sum_of([&](float x) { return (x - mean_) * (x - mean_); }) * share + step_.epsilon);
  }
  __device__ void load(int c, float (&v)[P]) const {
    fetch(place(c), v);
    if (step_.gain == nullptr) return;
    Affine<P> affine;
    affine.load(step_, place(c));
    normalise(affine, v);
  }

 private:
  __device__ void fetch(int k, float (&v)[P]) const {
    constexpr int kStep = kPieceOf<X> < P ? kPieceOf<X> : P;
#pragma unroll
    for (int at = 0; at < P; at += kStep) {
      Pack<X, kStep> raw = {};
      if (k < step_.D) raw = *reinterpret_cast<const Pack<X, kStep>*>(from_ + k + at);
#pragma unroll
      for (int i = 0; i < kStep; ++i) v[at + i] = static_cast<float>(raw.v[i]);
    }
  }
  /// Beyond the row gain and bias are 0.
  __device__ void normalise(const Affine<P>& affine, float (&v)[P]) const {
#pragma unroll
    for (int i = 0; i < P; ++i) {
      v[i] = normed(step_, v[i], mean_, inverse_, affine.gain[i], affine.bias[i]);
    }
  }
  template <class F>
  __device__ float sum_of(F f) const {
    float sum = 0;
    for (int c = 0; place(c) < step_.D; ++c) {
      float v[P];
      fetch(place(c), v);
#pragma unroll
      for (int i = 0; i < P; ++i) sum += f(v[i]);
    }
    return warp_sum(sum);
  }

  const StepProduct& step_;
  const X* from_;
  float mean_ = 0, inverse_ = 1;
};

/// The same for up to 32 rows without a norm on tensor cores; false where operands are not BF16.
bool multiplied_by_tiles(const Context& on, const LinearStepArgs& args, const StepProduct& step);

}  // namespace regla::cuda
