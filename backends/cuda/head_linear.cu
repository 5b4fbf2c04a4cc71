#include "backends/copies.h"
#include "backends/cuda/kernels.h"
#include "backends/cuda/product.h"
#include "backends/cuda/rows.cuh"

// y_h = x_h W_h^T (+ c_h) for every head h, as one call for all heads: the matrices of a head lie
// between those of the others, a row pitch of all heads apart.
namespace regla::cuda {
namespace {

/// The heads of a tensor, each a matrix [R, N]: [R, H, N] whichever axes R is made of.
Matrices heads_of(const Tensor& x, int64_t H) {
  Tensor handle = x;
  const int64_t N = x.dim(-1);
  return {handle.raw(), x.dtype(), x.numel() / (H * N), N, H * N, N};
}

/// The heads of a weight [H F, N], each a matrix [F, N].
Matrices weights_of(const Tensor& weight, int64_t H) {
  Tensor handle = weight;
  const int64_t F = weight.dim(0) / H, N = weight.dim(1);
  return {handle.raw(), weight.dtype(), F, N, N, F * N};
}

template <class S, int W>
struct BiasRow {
  int64_t N;
  Elements<S> bias;
  Result<S> y;

  __device__ void operator()(const Team& team, int64_t row) const {
    team.each<W>(N, [&](int64_t j) {
      S v[W];
      bias.load(j, v);
      y.put(row * N + j, v);
    });
  }
};

/// Every row of y becomes the bias.
template <class S>
void spread(const Tensor& bias, const Tensor& y) {
  const int64_t N = bias.numel();
  for_width<S>(
      N,
      [&](auto width) {
        constexpr int W = decltype(width)::value;
        for_each_row<W>(context(y), y.numel() / N, N,
                        BiasRow<S, W>{N, Elements<S>(bias), Result<S>(y)});
      },
      bias, y);
}

}  // namespace

void head_linear(const HeadLinearArgs& args, Tensor y) {
  if (args.bias) {
    for_sum_type(args.x.dtype(), "head_linear",
                 [&](auto tag) { spread<decltype(tag)>(args.bias, y); });
  }
  const int64_t H = args.x.dim(1);
  const Tensor weight = converted(args.weight, args.x.dtype());
  multiply(context(y), {.a = heads_of(args.x, H),
                        .b = weights_of(weight, H),
                        .c = heads_of(y, H),
                        .transpose_b = true,
                        .accumulate = args.bias.defined(),
                        .count = H});
}

void head_linear_backward(const HeadLinearArgs& args, const Tensor& d_y, Sink d_x, Sink d_weight) {
  const int64_t H = args.x.dim(1);
  const Tensor d = converted(d_y, args.x.dtype());
  if (d_x) {  // d_x_h = d_y_h W_h
    const Tensor weight = converted(args.weight, args.x.dtype());
    multiply(context(d_y), {.a = heads_of(d, H),
                            .b = weights_of(weight, H),
                            .c = heads_of(d_x.tensor, H),
                            .accumulate = d_x.accumulate,
                            .count = H});
  }
  if (d_weight) {  // d_W_h = d_y_h^T x_h
    multiply(context(d_y), {.a = heads_of(d, H),
                            .b = heads_of(args.x, H),
                            .c = weights_of(d_weight.tensor, H),
                            .transpose_a = true,
                            .accumulate = d_weight.accumulate,
                            .count = H});
  }
}

}  // namespace regla::cuda
