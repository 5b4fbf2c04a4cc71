#include <algorithm>
#include <type_traits>

#include "backends/cpu/bfloat16_cross_entropy.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/loops.h"
#include "backends/cpu/product.h"
#include "backends/cpu/vector_math.h"
#include "core/parallel.h"

namespace regla::cpu {
namespace {

/// Rows of logits held at once, of `rows` in equal slices: about 16 MB of float, but enough rows
/// that the weights, which every slice reads once more, are worth reading.
int64_t slice_rows(int64_t rows, int64_t vocab) {
  const int64_t most = std::clamp<int64_t>((int64_t{4} << 20) / vocab, 384, 1024);
  const int64_t slices = std::max<int64_t>(1, (rows + most - 1) / most);
  return (rows + slices - 1) / slices;
}

/// -log softmax(row)[target]; the row becomes scale * (softmax(row) - one_hot(target)).
template <class T>
T cross_entropy_row(T* row, int64_t vocab, int32_t target, T scale) {
  if (target < 0) {
    std::fill_n(row, vocab, T(0));
    return 0;
  }
  const T score = row[target];
  const T largest = max_of(row[0], row, vocab);
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < vocab; ++j) {
    row[j] = math::exp(row[j] - largest);
    sum += row[j];
  }
  const T factor = scale / sum;
#pragma omp simd
  for (int64_t j = 0; j < vocab; ++j) row[j] *= factor;
  row[target] -= scale;
  return math::log(sum) + largest - score;
}

/// The logits of some rows; then, in their place, the gradients of the logits.
template <class T, class W>
struct Slice {
  const CrossEntropyArgs& args;
  int64_t begin, rows, vocab = args.weight.dim(0), D = args.weight.dim(1);
  T* logits;  // [rows, vocab], rows padded(vocab) apart
  const T* hidden = args.hidden.data<T>() + begin * D;
  const W* weight = args.weight.data<W>();

  void compute_logits() const {
    multiply(Product<T, W>{.M = rows,
                           .N = vocab,
                           .K = D,
                           .transpose_b = true,
                           .a = hidden,
                           .a_pitch = D,
                           .b = weight,
                           .b_pitch = D,
                           .c = logits,
                           .c_pitch = padded(vocab)});
  }

  void compute_losses(T* losses) const {
    const int32_t* targets = args.targets.data<int32_t>() + begin;
    parallel_for(rows, 4, [&](int64_t from, int64_t to) {
      for (int64_t r = from; r < to; ++r) {
        losses[begin + r] = cross_entropy_row(logits + r * padded(vocab), vocab, targets[r],
                                              static_cast<T>(args.scale));
      }
    });
  }

  void add_gradients(T* d_hidden, T* d_weight) const {
    multiply(Product<T>{.M = rows,
                        .N = D,
                        .K = vocab,
                        .a = logits,
                        .a_pitch = padded(vocab),
                        .b = weight,
                        .b_pitch = D,
                        .c = d_hidden + begin * D,
                        .c_pitch = D});
    multiply(Product<T>{.M = vocab,
                        .N = D,
                        .K = rows,
                        .transpose_a = true,
                        .a = logits,
                        .a_pitch = padded(vocab),
                        .b = hidden,
                        .b_pitch = D,
                        .c = d_weight,
                        .c_pitch = D,
                        .accumulate = begin > 0});
  }
};

}  // namespace

void cross_entropy(const CrossEntropyArgs& args, Tensor losses, Tensor d_hidden, Tensor d_weight) {
  const int64_t R = args.hidden.dim(0), vocab = args.weight.dim(0);
  check_range("cross_entropy", "targets", args.targets, -1, vocab);
  if (args.hidden.dtype() == DType::BF16) {
    return bfloat16_cross_entropy(args, losses, d_hidden, d_weight);
  }
  const int64_t most = slice_rows(R, vocab);
  for_product_types(args.hidden, args.weight, "cross_entropy", [&](auto tag, auto stored) {
    using T = decltype(tag);
    using W = decltype(stored);
    Tensor logits = Tensor::empty({most, padded(vocab)}, dtype_of<T>);
    for (int64_t begin = 0; begin < R; begin += most) {
      const Slice<T, W> slice = {.args = args,
                                 .begin = begin,
                                 .rows = std::min(most, R - begin),
                                 .logits = logits.data<T>()};
      slice.compute_logits();
      slice.compute_losses(losses.data<T>());
      if constexpr (std::is_same_v<T, W>) {
        if (d_hidden) slice.add_gradients(d_hidden.data<T>(), d_weight.data<T>());
      }
    }
  });
}

}  // namespace regla::cpu
