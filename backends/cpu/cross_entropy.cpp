#include <algorithm>

#include "backends/cpu/kernels.h"
#include "backends/cpu/vector_math.h"
#include "core/parallel.h"

namespace regla::cpu {
namespace {

/// Rows of logits held at once: about 16 MB of float, at least 64 rows.
int64_t slice_rows(int64_t vocab) {
  return std::clamp<int64_t>((int64_t{4} << 20) / vocab, 64, 1024);
}

/// -log softmax(row)[target]; the row becomes scale * (softmax(row) - one_hot(target)).
template <class T>
T cross_entropy_row(T* row, int64_t vocab, int32_t target, T scale) {
  if (target < 0) {
    std::fill_n(row, vocab, T(0));
    return 0;
  }
  const T score = row[target];
  T largest = row[0], sum = 0;
#pragma omp simd reduction(max : largest)
  for (int64_t j = 0; j < vocab; ++j) largest = largest > row[j] ? largest : row[j];
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

}  // namespace

void cross_entropy(const CrossEntropyArgs& args, Tensor losses, Tensor d_hidden, Tensor d_weight) {
  const int64_t R = args.hidden.dim(0), vocab = args.weight.dim(0);
  const int64_t slice = std::min(R, slice_rows(vocab));
  Tensor logits = Tensor::empty({slice, vocab}, args.hidden.dtype());
  for (int64_t begin = 0; begin < R; begin += slice) {
    const int64_t end = std::min(R, begin + slice);
    const Tensor hidden = args.hidden.slice(begin, end);
    Tensor block = logits.slice(0, end - begin);
    matmul({.a = hidden, .b = args.weight, .bias = {}, .transpose_b = true}, {block, false});
    for_float_type(hidden.dtype(), "cross_entropy", [&](auto tag) {
      using T = decltype(tag);
      T *rows = block.data<T>(), *out = losses.data<T>() + begin;
      const int32_t* targets = args.targets.data<int32_t>() + begin;
      parallel_for(end - begin, 4, [&](int64_t from, int64_t to) {
        for (int64_t r = from; r < to; ++r) {
          out[r] =
              cross_entropy_row(rows + r * vocab, vocab, targets[r], static_cast<T>(args.scale));
        }
      });
    });
    if (!d_hidden) continue;
    matmul({.a = block, .b = args.weight, .bias = {}}, {d_hidden.slice(begin, end), false});
    matmul({.a = block, .b = hidden, .bias = {}, .transpose_a = true}, {d_weight, begin > 0});
  }
}

}  // namespace regla::cpu
