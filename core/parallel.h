#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <exception>

namespace regla {

/// Calls `f(begin, end)` on consecutive blocks of `grain` items covering [0, count), in parallel.
/// The blocks depend on `count` and `grain` alone, never on the number of threads: whatever is
/// computed per block has the same bits on any machine setting. What `f` throws (no memory, say)
/// comes out here once all blocks are through.
template <class F>
void parallel_for(int64_t count, int64_t grain, F&& f) {
  const int64_t blocks = (count + grain - 1) / grain;
  if (blocks <= 1) {
    if (count > 0) f(int64_t{0}, count);
    return;
  }
  std::exception_ptr error;
#pragma omp parallel for schedule(dynamic)
  for (int64_t block = 0; block < blocks; ++block) {
    try {
      f(block * grain, std::min(count, (block + 1) * grain));
    } catch (...) {
#pragma omp critical(regla_parallel_for)
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

inline void set_threads(int threads) { omp_set_num_threads(threads); }
inline int threads() { return omp_get_max_threads(); }
/// The thread that runs a block of `parallel_for`, for per-thread scratch memory.
inline int thread_index() { return omp_get_thread_num(); }

}  // namespace regla
