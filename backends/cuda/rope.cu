#include "backends/cuda/kernels.h"
#include "backends/cuda/rotation.cuh"

namespace regla::cuda {
namespace {

// Bytes: x and y once.
template <class S, int W, int P>
struct RopeRow {
  Elements<S> x;
  Result<S> y;

  __device__ void operator()(const Team& team, int row, int token, const Turns<S>& turns) const {
    PairedRow<S, W, P> turned(team, x, row, turns);
    turned.turn(token, turns);
    turned.each([&](int j, const S(&v)[W]) { y.put(turns.place(row) + j, v); });
  }
};

}  // namespace

void rope(const RopeArgs& args, Sink y) {
  if (!y) return;
  const Turn turn(args.x, args.rotation, args.inverse);
  for_sum_type(args.x.dtype(), "rope", [&](auto tag) {
    using S = decltype(tag);
    for_paired_rows<S>(
        turn,
        [&](auto width, auto packs) {
          constexpr int W = decltype(width)::value, P = decltype(packs)::value;
          for_each_turned_row<W, P, S>(turn, RopeRow<S, W, P>{Elements<S>(args.x), Result<S>(y)});
        },
        args.x, y.tensor);
  });
}

}  // namespace regla::cuda
