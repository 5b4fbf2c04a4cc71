#include <algorithm>
#include <type_traits>

#include "backends/cpu/bfloat16_cross_entropy.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/loops.h"
#include "backends/cpu/score_slice.h"
#include "backends/cpu/vector_math.h"
#include "core/parallel.h"

namespace regla::cpu {
namespace {

/// -log softmax(row)[target]; the row becomes scale * (softmax(row) - one_hot(target)).
template <class T>
T cross_entropy_row(T* row, int64_t vocab, int32_t target, T scale) {
  if (target < 0) {
    std::fill_n(row, vocab, T(0));
    return 0;
  }
  const T score = row[target];
  const T largest = max_of(row[0], row, vocab);
  const T sum = math::exponentials(row, largest, vocab, row), factor = scale / sum;
#pragma omp simd
  for (int64_t j = 0; j < vocab; ++j) row[j] *= factor;
  row[target] -= scale;
  return math::log(sum) + largest - score;
}

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
    const int32_t* targets = args.targets.data<int32_t>();
    const auto scale = static_cast<T>(args.scale);
    T* const to = losses.data<T>();
    for (int64_t begin = 0; begin < R; begin += most) {
      const ScoreSlice<T, W> slice(args.hidden, args.weight, begin, std::min(most, R - begin),
                                   logits);
      slice.compute_logits();
      parallel_for(slice.rows, 4, [&](int64_t from, int64_t end) {
        for (int64_t r = from; r < end; ++r) {
          to[begin + r] = cross_entropy_row(slice.row(r), vocab, targets[begin + r], scale);
        }
      });
      if constexpr (std::is_same_v<T, W>) {
        if (d_hidden) slice.add_gradients(d_hidden.data<T>(), d_weight.data<T>());
      }
    }
  });
}

}  // namespace regla::cpu
