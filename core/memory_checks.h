#pragma once

#include <cstddef>

// Both headers come with their tools and do nothing unless those watch.
#if __has_include(<sanitizer/asan_interface.h>)
#include <sanitizer/asan_interface.h>
#endif
#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#endif

// What the address sanitizer and valgrind's memcheck cannot know of memory that is kept and handed
// out again. Both are told: neither sees into segments that were mapped.
namespace regla {

/// Nobody may touch these bytes.
inline void mark_out_of_bounds([[maybe_unused]] void* memory, [[maybe_unused]] size_t bytes) {
#ifdef ASAN_POISON_MEMORY_REGION
  ASAN_POISON_MEMORY_REGION(memory, bytes);
#endif
#ifdef VALGRIND_MAKE_MEM_NOACCESS
  static_cast<void>(VALGRIND_MAKE_MEM_NOACCESS(memory, bytes));
#endif
}

/// They may be touched, but hold nothing yet, whatever was written there before.
inline void mark_unwritten([[maybe_unused]] void* memory, [[maybe_unused]] size_t bytes) {
#ifdef ASAN_UNPOISON_MEMORY_REGION
  ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
#endif
#ifdef VALGRIND_MAKE_MEM_UNDEFINED
  static_cast<void>(VALGRIND_MAKE_MEM_UNDEFINED(memory, bytes));
#endif
}

}  // namespace regla
