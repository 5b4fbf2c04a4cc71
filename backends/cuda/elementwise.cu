#include <algorithm>

#include "backends/cuda/columns.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/map.cuh"
#include "backends/cuda/totals.cuh"

namespace regla::cuda {
namespace {

template <class S>
struct Scaled {
  S factor;
  __device__ S operator()(S x) const { return factor * x; }
};

template <class S>
struct ScaledBy {
  Numbers factor;
  __device__ S operator()(S x) const { return static_cast<S>(factor.get(0)) * x; }
};

struct Sum {
  template <class S>
  __device__ S operator()(S a, S b) const {
    return a + b;
  }
};

template <class Loads>
struct RowsOf {
  using S = typename Loads::View::S;
  static constexpr int W = Loads::kWidth;

  typename Loads::View x;
  int64_t columns;

  using Fetched = typename Loads::View::template Raw<W>;
  __device__ int64_t place(int64_t c) const { return c; }
  __device__ Fetched fetch(int64_t r, int64_t c) const {
    Fetched raw;
    x.template fetch<W>(r * columns + c, raw);
    return raw;
  }
  __device__ void add(int64_t, int64_t, const Fetched& raw, S (&total)[1][W]) const {
    S v[W];
    x.template unpack<W>(raw, v);
    for (int w = 0; w < W; ++w) total[0][w] += v[w];
  }
};

template <class S>
struct Value {
  Elements<S> x;
  __device__ double operator()(int64_t i) const { return x[i]; }
};

// Bytes: x once.
template <class S>
__global__ void find_others(int64_t count, Elements<S> x, int32_t* finite) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  bool all = true;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    all = all && isfinite(x[i]);
  }
  if (!all) *finite = 0;  // whoever writes, it is the same number
}

}  // namespace

void accumulate(const Tensor& x, double scale, Sink out) {
  for_sum_type(x.dtype(), "accumulate", [&](auto tag) {
    using S = decltype(tag);
    map<S>(Scaled<S>{static_cast<S>(scale)}, out, x);
  });
}

void add(const Tensor& a, const Tensor& b, Tensor out) {
  for_sum_type(a.dtype(), "add", [&](auto tag) { map<decltype(tag)>(Sum{}, Sink{out}, a, b); });
}

void scale_by(const Tensor& x, const Tensor& factor, Sink out) {
  for_sum_type(x.dtype(), "scale_by", [&](auto tag) {
    using S = decltype(tag);
    map<S>(ScaledBy<S>{Numbers(factor)}, out, x);
  });
}

void sum(const Tensor& x, double scale, Tensor total) {
  for_sum_type(x.dtype(), "sum", [&](auto tag) {
    using S = decltype(tag);
    sum_all(context(total), x.numel(), Value<S>{Elements<S>(x)}, scale, Numbers(total));
  });
}

// Bytes: x once.
void column_sums(const Tensor& x, Sink sums) {
  for_sum_type(x.dtype(), "column_sums", [&](auto tag) {
    using S = decltype(tag);
    const int64_t N = x.dim(-1), R = N == 0 ? 0 : x.numel() / N;
    for_loads<S>(
        N,
        [&](auto loads) {
          using Loads = decltype(loads);
          sum_columns<Loads::kWidth>(context(x), R, N, RowsOf<Loads>{typename Loads::View(x), N},
                                     ColumnSums<S, 1>{{Result<S>(sums)}});
        },
        x);
  });
}

void is_finite(const Tensor& x, Tensor finite) {
  finite.fill(1);
  if (x.numel() == 0) return;
  const Context& on = context(finite);
  for_sum_type(x.dtype(), "is_finite", [&](auto tag) {
    using S = decltype(tag);
    find_others<<<blocks_for(on, x.numel()), kThreads, 0, on.stream>>>(x.numel(), Elements<S>(x),
                                                                       finite.data<int32_t>());
  });
  require_launched("is_finite");
}

}  // namespace regla::cuda
