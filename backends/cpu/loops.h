#pragma once

#include <algorithm>
#include <cstdint>

#include "backends/sink.h"
#include "core/check.h"
#include "core/parallel.h"

namespace regla::cpu {

/// Elements per parallel block of an elementwise loop.
constexpr int64_t kGrain = 16384;

/// out[i] = f(i), or += when the sink accumulates, for i in [begin, end): one thread, vectorised.
/// `flatten`, because a call to f left in the loop would stop that.
template <class T, class F>
[[gnu::flatten]] void write_range(T* out, bool accumulate, int64_t begin, int64_t end, F&& f) {
  if (accumulate) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) out[i] += f(i);
  } else {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) out[i] = f(i);
  }
}

/// The same in parallel over the whole tensor; nothing happens when nobody wants the result.
template <class T, class F>
void write(Sink& out, F&& f) {
  if (!out) return;
  T* data = out.tensor.data<T>();
  parallel_for(out.tensor.numel(), kGrain, [&](int64_t begin, int64_t end) {
    write_range(data, out.accumulate, begin, end, f);
  });
}

/// The sum of f(i) over [0, count), vectorised.
template <class F>
auto sum_of(int64_t count, F&& f) {
  decltype(f(int64_t{0})) sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += f(i);
  return sum;
}

/// The largest of `least` and x[0, count), vectorised; a NaN may be passed over.
template <class T>
T max_of(T least, const T* x, int64_t count) {
#pragma omp simd reduction(max : least)
  for (int64_t i = 0; i < count; ++i) least = least > x[i] ? least : x[i];
  return least;
}

/// Rows per block so that a block holds about kGrain elements.
inline int64_t row_grain(int64_t row_size) {
  return row_size >= kGrain ? 1 : kGrain / (row_size > 0 ? row_size : 1);
}

/// An Error unless all `indices` I32, which are called `what`, lie in [least, end).
inline void check_range(const char* kernel, const char* what, const Tensor& indices, int64_t least,
                        int64_t end) {
  const int32_t* index = indices.data<int32_t>();
  check(
      std::all_of(index, index + indices.numel(), [=](int64_t i) { return i >= least && i < end; }),
      "[", kernel, "] expected ", what, " from ", least, " to ", end - 1,
      ", got one outside that range");
}

}  // namespace regla::cpu
