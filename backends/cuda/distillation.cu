#include <algorithm>

#include "backends/cuda/kernels.h"
#include "backends/cuda/rows.cuh"
#include "backends/cuda/score_slice.cuh"

// As cross_entropy, with the scores of two decoders in the type of sums. Bytes: both scores three
// times, of which the nearest caches serve two where they hold the rows, and the gradients once.
namespace regla::cuda {
namespace {

// With s and t the scores of student and teacher over the temperature, each less its largest:
//     p = e^t / Z_t    q = e^s / Z_s    KL(p || q) = sum_j p_j (t_j - s_j) + log Z_s - log Z_t
//     loss = temperature^2 KL           d_score = scale * temperature (q - p)
template <class S, int W>
struct DistilledRow {
  int64_t vocab, pitch;  // what lies behind the vocabulary is nobody's
  Elements<S> scores, teacher;
  const int32_t* targets;
  S temperature, scale;
  Numbers losses;
  Result<S> d_scores;

  __device__ void operator()(const Team& team, int64_t row) const {
    const int64_t first = row * pitch;
    const bool counts = team.is_active && targets[row] >= 0;
    // Calls f(j, s, t) for this thread's j within the vocabulary.
    const auto each = [&](auto f) {
      team.each<W>(pitch, [&](int64_t j) {
        S s[W], t[W];
        scores.load(first + j, s);
        teacher.load(first + j, t);
#pragma unroll
        for (int w = 0; w < W; ++w) {
          if (j + w < vocab) f(s[w], t[w]);
        }
      });
    };
    S most = -std::numeric_limits<S>::infinity(), teacher_most = most;
    each([&](S s, S t) {
      most = most > s ? most : s;
      teacher_most = teacher_most > t ? teacher_most : t;
    });
    most = team.max(most);
    teacher_most = team.max(teacher_most);
    const S inverse = 1 / temperature;
    S sums[3] = {};  // Z_s, Z_t and Z_t sum_j p_j (t_j - s_j)
    each([&](S s, S t) {
      s = (s - most) * inverse;
      t = (t - teacher_most) * inverse;
      const S e = exp(t);
      sums[0] += exp(s);
      sums[1] += e;
      sums[2] += e * (t - s);
    });
    team.sum(sums);
    if (team.leads()) {
      const double logs = log(static_cast<double>(sums[0])) - log(static_cast<double>(sums[1]));
      const double divergence = static_cast<double>(sums[2]) / sums[1] + logs;
      losses.set(row, counts ? divergence * temperature * temperature : 0.0);
    }
    if (!d_scores) return;
    const S factor = scale * temperature / sums[0], teacher_factor = scale * temperature / sums[1];
    team.each<W>(pitch, [&](int64_t j) {
      S s[W], t[W], d[W];
      scores.load(first + j, s);
      teacher.load(first + j, t);
#pragma unroll
      for (int w = 0; w < W; ++w) {
        d[w] = factor * exp((s[w] - most) * inverse) -
               teacher_factor * exp((t[w] - teacher_most) * inverse);
        if (!counts) d[w] = 0;
      }
      d_scores.put(first + j, d);
    });
  }
};

}  // namespace

void distillation(const DistillationArgs& args, Tensor losses, Tensor d_hidden, Tensor d_weight) {
  const Context& on = context(losses);
  const int64_t R = args.hidden.dim(0), vocab = args.weight.dim(0), pitch = padded(vocab);
  const DType dtype = args.hidden.dtype();
  for_sum_type(dtype, "distillation", [&](auto tag) {
    using S = decltype(tag);
    constexpr int W = std::is_same_v<S, float> ? kWide : 1;
    const Shape size = {slice_rows(R, 2 * pitch), pitch};
    const Tensor scores = Tensor::empty(size, dtype_of<S>, on.device);
    const Tensor of_teacher = Tensor::empty(size, dtype_of<S>, on.device);
    // Operands of products: in the scores' place where they are of that type.
    const Tensor d_scores = !d_hidden              ? Tensor()
                            : dtype == dtype_of<S> ? scores
                                                   : Tensor::empty(size, dtype, on.device);
    for (int64_t begin = 0; begin < R; begin += size[0]) {
      const int64_t end = std::min(R, begin + size[0]);
      const ScoreSlice slice = {on, args.hidden, args.weight, begin, end};
      slice.compute(scores);
      ScoreSlice{on, args.teacher_hidden, args.teacher_weight, begin, end}.compute(of_teacher);
      for_each_row<W, 6, 1024>(on, end - begin, pitch,
                               DistilledRow<S, W>{.vocab = vocab,
                                                  .pitch = pitch,
                                                  .scores = Elements<S>(scores),
                                                  .teacher = Elements<S>(of_teacher),
                                                  .targets = args.targets.data<int32_t>() + begin,
                                                  .temperature = static_cast<S>(args.temperature),
                                                  .scale = static_cast<S>(args.scale),
                                                  .losses = Numbers(losses.slice(begin, end)),
                                                  .d_scores = Result<S>(d_scores)});
      if (d_hidden) slice.add_gradients(d_scores, d_hidden, d_weight);
    }
  });
}

}  // namespace regla::cuda
