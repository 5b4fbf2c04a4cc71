#pragma once

#include <cstdint>

#include "backends/cuda/context.h"
#include "backends/sink.h"

// Loops over independent elements: the GPU's side of cpu/loops.h.
namespace regla::cuda {

constexpr int kThreads = 256;

template <class F>
__global__ void each(int64_t count, F f) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) f(i);
}

/// Calls `f(i)` for every i in [0, count). The grid fills the GPU and no more.
template <class F>
void for_each(const Context& on, int64_t count, F f) {
  if (count == 0) return;
  constexpr int kBlocksPerMultiprocessor = 8;
  const int64_t wanted = (count + kThreads - 1) / kThreads;
  const int64_t most = int64_t{on.multiprocessors} * kBlocksPerMultiprocessor;
  const auto blocks = static_cast<unsigned>(wanted < most ? wanted : most);
  each<<<blocks, kThreads, 0, on.stream>>>(count, f);
  require_launched("elementwise");
}

/// out[i] = f(i), or += where the sink accumulates; nothing happens when nobody wants the result.
template <class T, class F>
void write(const Sink& sink, F f) {
  if (!sink) return;
  Tensor out = sink.tensor;
  T* to = out.data<T>();
  const Context& on = context(out);
  if (sink.accumulate) {
    for_each(on, out.numel(), [=] __device__(int64_t i) { to[i] += f(i); });
  } else {
    for_each(on, out.numel(), [=] __device__(int64_t i) { to[i] = f(i); });
  }
}

}  // namespace regla::cuda
