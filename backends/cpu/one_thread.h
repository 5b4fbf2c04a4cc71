#pragma once

#include <omp.h>

namespace regla::cpu {

/// While one lives, oneDNN takes this thread to be all there is. Else it would share K among
/// threads of its own, or cut it for so many, and the bits depended on their number.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) {
    if (before_ > 1) omp_set_num_threads(1);
  }
  ~OneThread() {
    if (before_ > 1) omp_set_num_threads(before_);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

}  // namespace regla::cpu
