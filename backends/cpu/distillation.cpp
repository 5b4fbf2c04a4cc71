#include <algorithm>

#include "backends/cpu/kernels.h"
#include "backends/cpu/loops.h"
#include "backends/cpu/score_slice.h"
#include "backends/cpu/vector_math.h"
#include "core/parallel.h"

namespace regla::cpu {
namespace {

// With s and t the scores of student and teacher over the temperature, each less its largest:
//     p = e^t / Z_t    q = e^s / Z_s    KL(p || q) = sum_j p_j (t_j - s_j) + log Z_s - log Z_t
/// temperature^2 KL; `scores` become scale * its gradient, scale * temperature (q - p), and
/// `teacher` is used up.
template <class T>
T distillation_row(T* scores, T* teacher, int64_t vocab, bool counts, T temperature, T scale) {
  if (!counts) {
    std::fill_n(scores, vocab, T(0));
    return 0;
  }
  const T most = max_of(scores[0], scores, vocab),
          teacher_most = max_of(teacher[0], teacher, vocab);
  const T inverse = 1 / temperature;
  T sum = 0, teacher_sum = 0, difference = 0;
#pragma omp simd reduction(+ : sum, teacher_sum, difference)
  for (int64_t j = 0; j < vocab; ++j) {
    const T s = (scores[j] - most) * inverse, t = (teacher[j] - teacher_most) * inverse;
    scores[j] = math::exp(s);
    teacher[j] = math::exp(t);
    sum += scores[j];
    teacher_sum += teacher[j];
    difference += teacher[j] * (t - s);
  }
  const T factor = scale * temperature / sum, teacher_factor = scale * temperature / teacher_sum;
#pragma omp simd
  for (int64_t j = 0; j < vocab; ++j) scores[j] = factor * scores[j] - teacher_factor * teacher[j];
  const T divergence = difference / teacher_sum + math::log(sum) - math::log(teacher_sum);
  return temperature * temperature * divergence;
}

}  // namespace

void distillation(const DistillationArgs& args, Tensor losses, Tensor d_hidden, Tensor d_weight) {
  const int64_t R = args.hidden.dim(0), vocab = args.weight.dim(0);
  const int64_t most = slice_rows(R, 2 * vocab);
  for_float_type(args.hidden.dtype(), "distillation", [&](auto tag) {
    using T = decltype(tag);
    const Shape size = {most, padded(vocab)};
    Tensor logits = Tensor::empty(size, dtype_of<T>), of_teacher = Tensor::empty(size, dtype_of<T>);
    const int32_t* targets = args.targets.data<int32_t>();
    const auto temperature = static_cast<T>(args.temperature), scale = static_cast<T>(args.scale);
    T* const to = losses.data<T>();
    for (int64_t begin = 0; begin < R; begin += most) {
      const int64_t rows = std::min(most, R - begin);
      const ScoreSlice<T> slice(args.hidden, args.weight, begin, rows, logits);
      const ScoreSlice<T> teacher(args.teacher_hidden, args.teacher_weight, begin, rows,
                                  of_teacher);
      slice.compute_logits();
      teacher.compute_logits();
      parallel_for(rows, 4, [&](int64_t from, int64_t end) {
        for (int64_t r = from; r < end; ++r) {
          to[begin + r] = distillation_row(slice.row(r), teacher.row(r), vocab,
                                           targets[begin + r] >= 0, temperature, scale);
        }
      });
      if (d_hidden) slice.add_gradients(d_hidden.data<T>(), d_weight.data<T>());
    }
  });
}

}  // namespace regla::cpu
