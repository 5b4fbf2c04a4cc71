#include <algorithm>

#include "backends/cpu/elements.h"
#include "backends/cpu/kernels.h"
#include "core/random.h"

namespace regla::cpu {
namespace {

/// Elements whose numbers are drawn at once: element n takes word n mod 4 of draw n / 4.
constexpr int64_t kDrawn = 1024;
/// Streams per step.
constexpr uint64_t kPlaces = 65536;

/// keep[n - first] = 1 / (1 - rate) or 0 for the elements [first, first + kDrawn); first is a
/// multiple of 4.
template <class T>
void draw(const DropoutArgs& args, const Random& random, int64_t first, T* keep) {
  constexpr int kDraws = 64;
  const auto threshold = static_cast<uint32_t>(args.rate * 0x1p32);
  const T scale = static_cast<T>(1 / (1 - args.rate));
  for (int64_t n = 0; n < kDrawn; n += 4 * kDraws) {
    uint32_t w[4][kDraws];
    random.draw(static_cast<uint64_t>((first + n) / 4), w);
    for (int i = 0; i < kDraws; ++i) {
      for (int j = 0; j < 4; ++j) keep[n + 4 * i + j] = w[j][i] >= threshold ? scale : T(0);
    }
  }
}

}  // namespace

void dropout(const DropoutArgs& args, Sink y) {
  for_sums_of(args.x, "dropout", [&](auto tag) {
    using T = decltype(tag);
    const Input<T> x(args.x);
    const T* residual = args.residual ? args.residual.data<T>() : nullptr;
    const Output<T> out(y);
    const auto step = args.step ? static_cast<uint64_t>(args.step.data<int32_t>()[0]) : 0;
    const Random random(args.seed, step * kPlaces + args.place);
    // Element i of x is number `first + i`; blocks of numbers begin at multiples of kDrawn.
    const int64_t skipped = args.first % kDrawn, start = args.first - skipped;
    parallel_for(skipped + args.x.numel(), kGrain, [&](int64_t begin, int64_t end) {
      alignas(64) T keep[kDrawn], room[kDrawn];
      for (int64_t n = begin; n < end; n += kDrawn) {
        draw(args, random, start + n, keep);
        const int64_t from = std::max(n, skipped), to = std::min(end, n + kDrawn);
        const int64_t i = from - skipped;
        const T *in = x.read(i, to - from, room), *k = keep + (from - n);
        if (residual != nullptr) {
          const T* r = residual + i;
          out.write(i, to - from, [=](int64_t j) { return r[j] + k[j] * in[j]; });
        } else {
          out.write(i, to - from, [=](int64_t j) { return k[j] * in[j]; });
        }
      }
    });
  });
}

}  // namespace regla::cpu
