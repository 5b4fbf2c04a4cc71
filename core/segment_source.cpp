#include "core/segment_source.h"

#include <sys/mman.h>

#include "core/memory_checks.h"

namespace regla {

char* HostSegments::map(char* wish, size_t bytes) {
  void* base = ::mmap(wish, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) return nullptr;
#ifdef MADV_HUGEPAGE
  // Also a wish. The processor fetches ahead only inside a page and remembers where few of them
  // lie: large ones are read up to 1.7 times as fast.
  ::madvise(base, bytes, MADV_HUGEPAGE);
#endif
  return static_cast<char*>(base);
}

void HostSegments::unmap(char* segment, size_t bytes) noexcept { ::munmap(segment, bytes); }

void HostSegments::mark_out_of_bounds(void* memory, size_t bytes) noexcept {
  regla::mark_out_of_bounds(memory, bytes);
}

void HostSegments::mark_unwritten(void* memory, size_t bytes) noexcept {
  regla::mark_unwritten(memory, bytes);
}

}  // namespace regla
