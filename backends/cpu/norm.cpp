#include <cmath>
#include <vector>

#include "backends/cpu/elements.h"
#include "backends/cpu/kernels.h"

namespace regla::cpu {
namespace {

/// Rows whose parameter gradients are summed together before the sums of blocks are added in order.
constexpr int64_t kRowBlock = 64;

}  // namespace

void norm(const NormArgs& args, Tensor y, Tensor mean, Tensor inverse) {
  for_sums_of(args.x, "norm", [&](auto tag) {
    using T = decltype(tag);
    const int64_t N = args.x.dim(-1), R = args.x.numel() / N, G = args.gain.numel() / N;
    const Input<T> x(args.x);
    const T* gain = args.gain.data<T>();
    const T* bias = args.bias ? args.bias.data<T>() : nullptr;
    const Output<T> out(y);
    T *means = mean.data<T>(), *inverses = inverse.data<T>();
    const T epsilon = static_cast<T>(args.epsilon);
    parallel_for(R, row_grain(N), [&](int64_t begin, int64_t end) {
      std::vector<T> room = x.room(N);
      for (int64_t r = begin; r < end; ++r) {
        const T *in = x.read(r * N, N, room), *g = gain + r % G * N;
        T sum = 0, squares = 0;
        if (args.center) {
#pragma omp simd reduction(+ : sum)
          for (int64_t j = 0; j < N; ++j) sum += in[j];
        }
        const T m = sum / static_cast<T>(N);
#pragma omp simd reduction(+ : squares)
        for (int64_t j = 0; j < N; ++j) squares += (in[j] - m) * (in[j] - m);
        const T scale = 1 / std::sqrt(squares / static_cast<T>(N) + epsilon);
        means[r] = m;
        inverses[r] = scale;
        if (bias != nullptr) {
          const T* b = bias + r % G * N;
          out.write(r * N, N, [=](int64_t j) { return (in[j] - m) * scale * g[j] + b[j]; });
        } else {
          out.write(r * N, N, [=](int64_t j) { return (in[j] - m) * scale * g[j]; });
        }
      }
    });
  });
}

namespace {

// With x^ = (x - mean) * inverse and w = d_y * gain:
//   d_x = inverse * (w - mean(w) [if centred] - x^ * mean(w * x^))
template <class T>
void norm_backward_x(const NormArgs& args, const T* means, const T* inverses, Input<T> d_out,
                     const Sink& d_x) {
  const int64_t N = args.x.dim(-1), R = args.x.numel() / N, G = args.gain.numel() / N;
  const Input<T> x(args.x);
  const T* gain = args.gain.data<T>();
  const Output<T> out(d_x);
  parallel_for(R, row_grain(N), [&](int64_t begin, int64_t end) {
    std::vector<T> room = x.room(N), d_room = d_out.room(N);
    for (int64_t r = begin; r < end; ++r) {
      const T *in = x.read(r * N, N, room), *d = d_out.read(r * N, N, d_room);
      const T* g = gain + r % G * N;
      const T m = means[r], scale = inverses[r];
      T sum_w = 0, sum_wx = 0;
#pragma omp simd reduction(+ : sum_w, sum_wx)
      for (int64_t j = 0; j < N; ++j) {
        const T w = d[j] * g[j];
        sum_w += w;
        sum_wx += w * (in[j] - m) * scale;
      }
      const T mean_w = args.center ? sum_w / static_cast<T>(N) : T(0);
      const T mean_wx = sum_wx / static_cast<T>(N);
      out.write(r * N, N, [=](int64_t j) {
        return scale * (d[j] * g[j] - mean_w - (in[j] - m) * scale * mean_wx);
      });
    }
  });
}

template <class T>
void norm_backward_parameters(const NormArgs& args, const T* means, const T* inverses,
                              Input<T> d_out, Sink& d_gain, Sink& d_bias) {
  const int64_t N = args.x.dim(-1), R = args.x.numel() / N, G = args.gain.numel() / N;
  const Input<T> x(args.x);
  const int64_t rows = kRowBlock * G, blocks = (R + rows - 1) / rows, size = G * N;
  Tensor partial = Tensor::zeros({blocks, 2, size}, dtype_of<T>);
  T* sums = partial.data<T>();
  parallel_for(R, rows, [&](int64_t begin, int64_t end) {
    T* block_gain = sums + begin / rows * 2 * size;
    T* block_bias = block_gain + size;
    std::vector<T> room = x.room(N), d_room = d_out.room(N);
    for (int64_t r = begin; r < end; ++r) {
      const T *in = x.read(r * N, N, room), *d = d_out.read(r * N, N, d_room);
      T *dg = block_gain + r % G * N, *db = block_bias + r % G * N;
      const T m = means[r], scale = inverses[r];
#pragma omp simd
      for (int64_t j = 0; j < N; ++j) {
        dg[j] += d[j] * (in[j] - m) * scale;
        db[j] += d[j];
      }
    }
  });
  for (int64_t b = 1; b < blocks; ++b) {
    for (int64_t i = 0; i < 2 * size; ++i) sums[i] += sums[b * 2 * size + i];
  }
  write<T>(d_gain, [=](int64_t i) { return sums[i]; });
  write<T>(d_bias, [=](int64_t i) { return sums[size + i]; });
}

}  // namespace

void norm_backward(const NormArgs& args, const Tensor& mean, const Tensor& inverse,
                   const Tensor& d_y, Sink d_x, Sink d_gain, Sink d_bias) {
  for_sums_of(args.x, "norm", [&](auto tag) {
    using T = decltype(tag);
    const T *means = mean.data<T>(), *inverses = inverse.data<T>();
    const Input<T> d_out(d_y);
    if (d_gain || d_bias) norm_backward_parameters(args, means, inverses, d_out, d_gain, d_bias);
    if (d_x) norm_backward_x(args, means, inverses, d_out, d_x);
  });
}

}  // namespace regla::cpu
