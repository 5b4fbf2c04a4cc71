#include <algorithm>

#include "backends/cpu/gemm.h"
#include "backends/cpu/kernels.h"
#include "core/parallel.h"

// y_h = x_h W_h^T (+ c_h) for every head h: what feature maps with weights of their own begin with.
// Heads are read in place, a row pitch of all heads apart.
namespace regla::cpu {
namespace {

/// Rows of one product; blocks depend on the shape alone.
constexpr int64_t kRows = 256;

struct Sizes {
  int64_t R, H, N, F;
  explicit Sizes(const HeadLinearArgs& args)
      : R(args.x.dim(0)), H(args.x.dim(1)), N(args.x.dim(2)), F(args.weight.dim(0) / H) {}
  int64_t blocks() const { return (R + kRows - 1) / kRows; }
};

/// Calls f(head, first row, rows) for every block of every head, in parallel.
template <class F>
void for_blocks(const Sizes& n, F&& f) {
  parallel_for(n.H * n.blocks(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / n.H * kRows;
      f(i % n.H, row, std::min(kRows, n.R - row));
    }
  });
}

}  // namespace

void head_linear(const HeadLinearArgs& args, Tensor y) {
  for_float_type(args.x.dtype(), "head_linear", [&](auto tag) {
    using T = decltype(tag);
    const Sizes n(args);
    const T *x = args.x.data<T>(), *weight = args.weight.data<T>();
    const T* bias = args.bias ? args.bias.data<T>() : nullptr;
    T* out = y.data<T>();
    for_blocks(n, [&](int64_t h, int64_t row, int64_t rows) {
      T* block = out + (row * n.H + h) * n.F;
      if (bias) {
        for (int64_t r = 0; r < rows; ++r) std::copy_n(bias + h * n.F, n.F, block + r * n.H * n.F);
      }
      gemm(false, true, rows, n.F, n.N, T(1), x + (row * n.H + h) * n.N, n.H * n.N,
           weight + h * n.F * n.N, n.N, T(bias != nullptr), block, n.H * n.F);
    });
  });
}

void head_linear_backward(const HeadLinearArgs& args, const Tensor& d_y, Sink d_x, Sink d_weight) {
  for_float_type(args.x.dtype(), "head_linear", [&](auto tag) {
    using T = decltype(tag);
    const Sizes n(args);
    const T *x = args.x.data<T>(), *weight = args.weight.data<T>(), *d = d_y.data<T>();
    if (d_x) {  // d_x_h = d_y_h W_h
      T* out = d_x.tensor.data<T>();
      for_blocks(n, [&](int64_t h, int64_t row, int64_t rows) {
        gemm(false, false, rows, n.N, n.F, T(1), d + (row * n.H + h) * n.F, n.H * n.F,
             weight + h * n.F * n.N, n.N, T(d_x.accumulate), out + (row * n.H + h) * n.N,
             n.H * n.N);
      });
    }
    if (d_weight) {  // d_W_h = d_y_h^T x_h
      T* out = d_weight.tensor.data<T>();
      parallel_for(n.H, 1, [&](int64_t begin, int64_t end) {
        for (int64_t h = begin; h < end; ++h) {
          gemm(true, false, n.F, n.N, n.R, T(1), d + h * n.F, n.H * n.F, x + h * n.N, n.H * n.N,
               T(d_weight.accumulate), out + h * n.F * n.N, n.N);
        }
      });
    }
  });
}

}  // namespace regla::cpu
