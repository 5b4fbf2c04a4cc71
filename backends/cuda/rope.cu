#include "backends/cuda/kernels.h"
#include "backends/cuda/rotation.cuh"

namespace regla::cuda {
namespace {

// Bytes: x and y once.
template <class Held_>
struct RopeRow {
  using Held = Held_;
  using S = typename Held::S;
  using Row = PairedRow<Held>;

  typename Held::View x;
  Result<S> y;

  __device__ typename Row::Fetched fetch(const Team& team, int row, const Turn& turn) const {
    return {team, x, row, turn};
  }
  __device__ void operator()(const Team& team, int row, int token, const Turns<S>& turns,
                             const typename Row::Fetched& fetched) const {
    Row turned(team, x, fetched, turns);
    turned.turn(token, turns);
    turned.each([&](int j, const S(&v)[Held::W]) { y.put(turns.place(row) + j, v); });
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
        [&](auto held) {
          using Held = decltype(held);
          for_each_turned_row(turn, RopeRow<Held>{typename Held::View(args.x), Result<S>(y)});
        },
        args.x, y.tensor);
  });
}

}  // namespace regla::cuda
