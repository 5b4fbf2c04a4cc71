#pragma once

#include <algorithm>
#include <cstdint>

#ifdef __AVX__
#include <immintrin.h>
#endif

// The one header with processor instructions in it: the language has no word for these stores.
namespace regla::cpu {

/// Copies `count` elements past the caches, for results that are read much later. An ordinary store
/// first reads the line that it overwrites, and puts it where something else was. Call `streamed`
/// when done.
template <class T>
void stream(const T* from, int64_t count, T* to) {
#if defined(__AVX512F__)
  using Vector = __m512i;
  const auto put = [](T* at, const T* x) {
    _mm512_stream_si512(reinterpret_cast<Vector*>(at), _mm512_loadu_si512(x));
  };
#elif defined(__AVX__)
  using Vector = __m256i;
  const auto put = [](T* at, const T* x) {
    _mm256_stream_si256(reinterpret_cast<Vector*>(at),
                        _mm256_loadu_si256(reinterpret_cast<const Vector*>(x)));
  };
#endif
  int64_t done = 0;
#ifdef __AVX__
  if (reinterpret_cast<uintptr_t>(to) % sizeof(Vector) == 0) {
    constexpr auto lanes = static_cast<int64_t>(sizeof(Vector) / sizeof(T));
    for (; done + lanes <= count; done += lanes) put(to + done, from + done);
  }
#endif
  std::copy_n(from + done, count - done, to + done);
}

/// What this thread streamed before is visible to every thread that sees what it does after.
inline void streamed() {
#ifdef __AVX__
  _mm_sfence();
#endif
}

}  // namespace regla::cpu
