#include "backends/cpu/few_rows.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "backends/cpu/small_gemm.h"
#include "core/parallel.h"

// Every output is a dot product along K. A thread takes one row of B after the other: a single
// stream of addresses, which the processor fetches ahead on its own. Several rows of B at a time
// measured half as fast, and prefetching by hand no faster.
namespace regla::cpu {
namespace {

/// Pieces of B per thread. Long ones: in pieces of 64 KB the same took 1.3 times as long. Every
/// output is computed by itself, so its bits do not depend on how many there are.
constexpr int64_t kPieces = 4;
/// Up to so many bytes of B, starting threads costs more than they save.
constexpr int64_t kAloneBytes = int64_t{256} << 10;

template <class T>
using Vector = typename VectorOf<T, kVectorBytes>::type;
template <class T>
constexpr int64_t kLanes = kVectorBytes / static_cast<int64_t>(sizeof(T));

template <class T>
void read(const T* from, Vector<T>& to) {
  to = load<Vector<T>>(from);
}
/// Widens in registers: a BF16 is the upper half of a float.
inline void read(const BFloat16* from, Vector<float>& to) {
  typedef uint16_t Halves __attribute__((vector_size(kVectorBytes / 2)));
  typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));
  Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  const Words words = __builtin_convertvector(halves, Words) << 16;
  std::memcpy(&to, &words, sizeof to);
}

/// v[i] += v[(i + half) mod lanes] for every lane i.
template <int64_t half, class V, size_t... lane>
void add_turned(V& v, std::index_sequence<lane...>) {
  v += __builtin_shufflevector(v, v, ((lane + half) % sizeof...(lane))...);
}

/// The sum over all lanes, by halves, without leaving the registers. Ends with v as this sum.
template <class T, int64_t half = kLanes<T> / 2>
T sum_of(Vector<T>& v) {
  add_turned<half>(v, std::make_index_sequence<kLanes<T>>());
  if constexpr (half > 1) return sum_of<T, half / 2>(v);
  return v[0];
}

/// sums[r] = sum_k a[r, k] b[k] for R rows of A. Two accumulators each, so that an addition need
/// not wait for the one before.
template <int R, class T, class W>
void dot_rows(int64_t K, const T* a, int64_t a_pitch, const W* b, T* sums) {
  constexpr int64_t lanes = kLanes<T>;
  Vector<T> even[R] = {}, odd[R] = {}, b0, b1, a0, a1;
  int64_t k = 0;
  for (; k + 2 * lanes <= K; k += 2 * lanes) {
    read(b + k, b0);
    read(b + k + lanes, b1);
    for (int r = 0; r < R; ++r) {
      read(a + r * a_pitch + k, a0);
      read(a + r * a_pitch + k + lanes, a1);
      even[r] += a0 * b0;
      odd[r] += a1 * b1;
    }
  }
  if (k + lanes <= K) {
    read(b + k, b0);
    for (int r = 0; r < R; ++r) {
      read(a + r * a_pitch + k, a0);
      even[r] += a0 * b0;
    }
    k += lanes;
  }
  for (int r = 0; r < R; ++r) {
    even[r] += odd[r];
    sums[r] = sum_of<T>(even[r]);
    for (int64_t j = k; j < K; ++j) sums[r] += a[r * a_pitch + j] * static_cast<T>(b[j]);
  }
}

/// All rows of A against one row of B, which stays in the first-level cache between passes.
template <class T, class W>
void dot_all(const Product<T, W>& p, const W* b, T* sums) {
  if constexpr (kFewRows<W> == 1) return dot_rows<1>(p.K, p.a, p.a_pitch, b, sums);
  for (int64_t m = 0; m < p.M; m += 4) {
    const T* a = p.a + m * p.a_pitch;
    switch (p.M - m) {
      case 1:
        dot_rows<1>(p.K, a, p.a_pitch, b, sums + m);
        break;
      case 2:
        dot_rows<2>(p.K, a, p.a_pitch, b, sums + m);
        break;
      case 3:
        dot_rows<3>(p.K, a, p.a_pitch, b, sums + m);
        break;
      default:  // the sums of more rows would not stay in registers
        dot_rows<4>(p.K, a, p.a_pitch, b, sums + m);
    }
  }
}

template <class T, class W>
void multiply_any(const Product<T, W>& p) {
  const int64_t row_bytes = std::max<int64_t>(1, p.K * static_cast<int64_t>(sizeof(W)));
  const int64_t pieces = p.N * row_bytes <= kAloneBytes ? 1 : kPieces * threads();
  const int64_t grain = std::max<int64_t>(1, (p.N + pieces - 1) / pieces);
  if (p.M == 0) return;
  parallel_for(p.N, grain, [&](int64_t begin, int64_t end) {
    T sums[kFewRows<W>];
    for (int64_t n = begin; n < end; ++n) {
      dot_all(p, p.b + n * p.b_pitch, sums);
      for (int64_t m = 0; m < p.M; ++m) {
        T* c = p.c + m * p.c_pitch + n;
        const T sum = p.bias != nullptr ? sums[m] + p.bias[n] : sums[m];
        *c = p.accumulate ? *c + sum : sum;
      }
    }
  });
}

}  // namespace

void multiply_few_rows(const Product<float>& product) { multiply_any(product); }
void multiply_few_rows(const Product<double>& product) { multiply_any(product); }
void multiply_few_rows(const Product<float, BFloat16>& product) { multiply_any(product); }

}  // namespace regla::cpu
