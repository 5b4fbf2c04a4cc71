#include "backends/cpu/kernels.h"
#include "core/parallel.h"

namespace regla::cpu {

void penalise(const PenaliseArgs& args, Tensor y) {
  const int64_t B = args.scores.dim(0), vocab = args.scores.dim(1);
  Tensor flags = args.seen;
  auto* seen = flags.data<int32_t>();
  for (int64_t b = 0; args.ids && b < B; ++b) {
    const int32_t id = args.ids.data<int32_t>()[b];
    if (id >= 0) seen[b * vocab + id] = 1;
  }
  for_float_type(args.scores.dtype(), "penalise", [&](auto tag) {
    using T = decltype(tag);
    const T* in = args.scores.data<T>();
    T* out = y.data<T>();
    const auto penalty = static_cast<T>(args.penalty);
    parallel_for(B, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin * vocab; i < end * vocab; ++i) {
        const T penalised = in[i] > 0 ? in[i] / penalty : in[i] * penalty;
        out[i] = seen[i] != 0 ? penalised : in[i];
      }
    });
  });
}

}  // namespace regla::cpu
