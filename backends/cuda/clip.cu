#include "backends/cuda/elements.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/listed.cuh"
#include "backends/cuda/totals.cuh"

namespace regla::cuda {
namespace {

template <class T>
void restart_elements(const int32_t* flag, double value, Tensor x) {
  T* out = x.data<T>();
  for_each(context(x), x.numel(), [=] __device__(int64_t i) {
    if (flag[0] != 0) out[i] = static_cast<T>(value);
  });
}

/// Numbers whose squares are added up.
template <class S>
struct Squared {
  const S* x;
  int64_t elements;
  bool is_aligned;
};

// parts[piece] = the sum of squares over a piece. Bytes: each number once.
template <class S>
__global__ __launch_bounds__(kThreads) void square_pieces(
    const __grid_constant__ Listed<Squared<S>> list, double* parts) {
  const int which = list.owner(blockIdx.x);
  const Squared<S>& one = list.at[which];
  const int64_t begin = int64_t{blockIdx.x - list.first[which]} * kPiece;
  const int64_t end = begin + kPiece < one.elements ? begin + kPiece : one.elements;
  int64_t rest = begin;
  double total = 0;
  if constexpr (std::is_same_v<S, float>) {
    if (one.is_aligned) {
      rest = end / kWide * kWide;
#pragma unroll
      for (int64_t i = begin + threadIdx.x * kWide; i < rest; i += kThreads * kWide) {
        S v[kWide];
        Elements<S>(one.x, false).load(i, v);
        for (const double value : v) total += value * value;
      }
    }
  }
  for (int64_t i = rest + threadIdx.x; i < end; i += kThreads) {
    const double value = one.x[i];
    total += value * value;
  }
  total = block_sum(total);
  if (threadIdx.x == 0) parts[blockIdx.x] = total;
}

/// sums[i] = the sum of the pieces of tensor i, a block for each.
template <class S>
__global__ __launch_bounds__(kThreads) void sum_pieces(
    const __grid_constant__ Listed<Squared<S>> list, const double* parts, double* sums) {
  double total = 0;
  for (unsigned piece = list.first[blockIdx.x] + threadIdx.x; piece < list.first[blockIdx.x + 1];
       piece += kThreads) {
    total += parts[piece];
  }
  total = block_sum(total);
  if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

template <class S>
void sum_squares(const Context& on, const std::vector<Tensor>& x, double* sums) {
  for_lists<Squared<S>>(
      x.size(),
      [&](size_t i) {
        const S* numbers = x[i] ? x[i].data<S>() : nullptr;
        return Squared<S>{numbers, x[i].numel(), are_aligned(x[i])};
      },
      [&](size_t i) { return x[i].numel(); },
      [&](const Listed<Squared<S>>& list, size_t begin) {
        Tensor partial = Tensor::empty({int64_t{list.pieces()}}, DType::F64, on.device);
        double* parts = partial.data<double>();
        if (list.pieces() > 0)
          square_pieces<<<list.pieces(), kThreads, 0, on.stream>>>(list, parts);
        sum_pieces<<<static_cast<unsigned>(list.count), kThreads, 0, on.stream>>>(list, parts,
                                                                                  sums + begin);
        require_launched("sums_of_squares");
      });
}

__device__ double sum_in_order(const double* x, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += x[i];
  return sum;
}

}  // namespace

void sums_of_squares(const std::vector<Tensor>& x, Tensor sums) {
  const auto first = std::find_if(x.begin(), x.end(), [](const Tensor& one) { return bool(one); });
  if (first == x.end()) return sums.fill(0);
  for_float_type(first->dtype(), "sums_of_squares", [&](auto tag) {
    sum_squares<decltype(tag)>(context(sums), x, sums.data<double>());
  });
}

/// One thread: there are few numbers, and the order of the sums is that of the CPU.
void clip_factor(const Tensor& squares, const Tensor& losses, double largest, Tensor latch,
                 Tensor report) {
  const double *square = squares.data<double>(), *losses_at = losses.data<double>();
  const int64_t n = squares.numel(), m = losses.numel();
  int32_t* stopped = latch.data<int32_t>();
  double* out = report.data<double>();
  for_each(context(report), 1, [=] __device__(int64_t) {
    const double loss = sum_in_order(losses_at, m), norm = sqrt(sum_in_order(square, n));
    if (!isfinite(loss) || !isfinite(norm)) *stopped = 1;
    out[0] = loss;
    out[1] = norm;
    out[2] = *stopped != 0 ? 0 : largest > 0 && norm > largest ? largest / norm : 1;
  });
}

void commit(const Tensor& factor, const Tensor& from, Tensor to) {
  const double* by = factor.data<double>();
  const auto* source = static_cast<const uint16_t*>(from.raw());  // every type has an even size
  auto* target = static_cast<uint16_t*>(to.raw());
  for_each(context(to), to.bytes() / 2, [=] __device__(int64_t i) {
    if (by[0] != 0) target[i] = source[i];
  });
}

void restart(const Tensor& flag, double value, Tensor x) {
  for_any_type(x.dtype(),
               [&](auto tag) { restart_elements<decltype(tag)>(flag.data<int32_t>(), value, x); });
}

}  // namespace regla::cuda
