#include "backends/cpu/bfloat16_cross_entropy.h"

#include <algorithm>
#include <limits>

#include "backends/cpu/elements.h"
#include "backends/cpu/vector_math.h"

// By panels of the vocabulary, each the work of one thread while it stays in its caches. With x the
// logits of a row, forward makes e = e^(x - largest) of each panel and keeps its largest x and the
// sum of e, from which follow log_sum and the loss; backward makes d = scale * (softmax - one_hot)
// of a panel, in BF16, where softmax = e * e^(largest - log_sum), and multiplies it twice:
//     d_hidden += d W_panel          d_W_panel += d^T hidden
// Panels share d_hidden in a fixed number of groups, whose sums are added in order.
namespace regla::cpu {
namespace {

constexpr int64_t kGroups = 8;
constexpr int64_t kMostRows = 512;  // of a slice: the panels of so many exist at a time
constexpr int64_t kRows = 128;      // of a panel that are made at a time

/// Columns of a panel: few enough for the second-level cache, but panels for all threads.
int64_t panel_size(int64_t vocab) {
  return std::clamp<int64_t>((vocab / (2 * kGroups) + 63) / 64 * 64, 64, 512);
}

/// Memory for each thread and for the panels of a slice.
struct Room {
  BFloat16Way way;
  int64_t rows, vocab, D, size = panel_size(vocab), panels = (vocab + size - 1) / size;
  int64_t b_bytes = std::max(PackedB::bytes(way, size, D), PackedB::bytes(way, D, size));
  Tensor logits = Tensor::empty({threads(), kRows, size}, DType::F32);
  Tensor exponentials = Tensor::empty({panels, rows, size}, DType::F32);
  Tensor largest = Tensor::empty({panels, rows}, DType::F32), sums = Tensor::empty_like(largest);
  Tensor factors = Tensor::empty_like(largest);       // of exponentials, for scale * softmax
  Tensor scores = Tensor::empty({rows}, DType::F32);  // the logits of targets
  Tensor b = Tensor::empty({threads(), b_bytes / 8}, DType::F64);
  Tensor d = Tensor::empty({threads(), rows, size}, DType::BF16);
  Tensor hidden = Tensor::empty({PackedB::bytes(way, D, rows) / 8}, DType::F64);
  Tensor d_hidden = Tensor::empty({kGroups, rows, D}, DType::F32);
};

/// Rows [begin, begin + rows) of hidden states.
struct Slice {
  const CrossEntropyArgs& args;
  Room& room;
  int64_t begin, rows;

  int64_t columns(int64_t panel) const {
    return std::min(room.size, room.vocab - panel * room.size);
  }
  const BFloat16* hidden() const { return args.hidden.data<BFloat16>() + begin * room.D; }
  const BFloat16* weight(int64_t panel) const {
    return args.weight.data<BFloat16>() + panel * room.size * room.D;
  }
  float* exponentials(int64_t panel) const {
    return room.exponentials.data<float>() + panel * room.rows * room.size;
  }
  /// The column of a panel that is right for a row; negative if it is in another panel.
  int64_t target(int64_t panel, int64_t row) const {
    const int64_t column = args.targets.data<int32_t>()[begin + row] - panel * room.size;
    return column < columns(panel) ? column : -1;
  }
  PackedB b_of_thread(int64_t N, int64_t K) const {
    auto* memory = static_cast<char*>(room.b.raw()) + thread_index() * room.b_bytes;
    return {room.way, N, K, memory};
  }

  /// From x = hidden W_panel^T the exponentials, the largest x of each row and their sum.
  void forward(int64_t panel) const {
    const int64_t N = columns(panel);
    const PackedB b = b_of_thread(N, room.D);
    b.pack(true, weight(panel), room.D);
    float* x = room.logits.data<float>() + thread_index() * kRows * room.size;
    for (int64_t first = 0; first < rows; first += kRows) {
      const int64_t count = std::min(kRows, rows - first);
      multiply_packed(PackedProduct<float>{.M = count,
                                           .transpose_a = false,
                                           .a = hidden() + first * room.D,
                                           .a_pitch = room.D,
                                           .b = b,
                                           .bias = nullptr,
                                           .c = x,
                                           .c_pitch = N,
                                           .accumulate = false,
                                           .c_is_in_cache = true});
      for (int64_t r = 0; r < count; ++r) exponentiate(panel, first + r, x + r * N);
    }
  }

  /// Row r of a panel: its exponentials, their sum, the largest x, and that of the target.
  void exponentiate(int64_t panel, int64_t r, const float* x) const {
    const int64_t N = columns(panel);
    if (const int64_t right = target(panel, r); right >= 0) {
      room.scores.data<float>()[r] = x[right];
    }
    // Not -infinity, which must not be subtracted from itself.
    const float most = max_of(std::numeric_limits<float>::lowest(), x, N);
    const int64_t at = panel * room.rows + r;
    room.largest.data<float>()[at] = most;
    room.sums.data<float>()[at] = math::exponentials(x, most, N, exponentials(panel) + r * N);
  }

  /// losses = log_sum - x[target], and the factors of the row's exponentials.
  void finish_rows(float* losses) const {
    const int32_t* targets = args.targets.data<int32_t>() + begin;
    const float *largest = room.largest.data<float>(), *sums = room.sums.data<float>();
    float* factors = room.factors.data<float>();
    for (int64_t r = 0; r < rows; ++r) {
      float most = largest[r], sum = 0;
      for (int64_t p = 1; p < room.panels; ++p) most = std::max(most, largest[p * room.rows + r]);
      for (int64_t p = 0; p < room.panels; ++p) {
        const int64_t at = p * room.rows + r;
        factors[at] = math::exp(largest[at] - most);
        sum += sums[at] * factors[at];
      }
      const float factor = static_cast<float>(args.scale) / sum;
      for (int64_t p = 0; p < room.panels; ++p) factors[p * room.rows + r] *= factor;
      losses[begin + r] = targets[r] < 0 ? 0 : math::log(sum) + most - room.scores.data<float>()[r];
    }
  }

  /// Row r of d of a panel.
  void differentiate(int64_t panel, int64_t r, BFloat16* d) const {
    const int64_t N = columns(panel);
    if (args.targets.data<int32_t>()[begin + r] < 0) {
      std::fill_n(d, N, BFloat16());
      return;
    }
    const float* e = exponentials(panel) + r * N;
    const float factor = room.factors.data<float>()[panel * room.rows + r];
    Output<float>(d, false).write(0, N, [=](int64_t j) { return factor * e[j]; });
    if (const int64_t right = target(panel, r); right >= 0) {
      d[right] = BFloat16(factor * e[right] - static_cast<float>(args.scale));
    }
  }

  /// The two products of d of a panel, the first of a group beginning its sum.
  void backward(int64_t panel, bool is_first, float* d_hidden, float* d_weight) const {
    const int64_t N = columns(panel), D = room.D;
    BFloat16* d = room.d.data<BFloat16>() + thread_index() * room.rows * room.size;
    const PackedB b = b_of_thread(D, N);
    b.pack(false, weight(panel), D);
    for (int64_t first = 0; first < rows; first += kRows) {
      const int64_t count = std::min(kRows, rows - first);
      for (int64_t r = first; r < first + count; ++r) differentiate(panel, r, d + r * N);
      multiply_packed(PackedProduct<float>{.M = count,
                                           .transpose_a = false,
                                           .a = d + first * N,
                                           .a_pitch = N,
                                           .b = b,
                                           .bias = nullptr,
                                           .c = d_hidden + first * D,
                                           .c_pitch = D,
                                           .accumulate = !is_first});
    }
    multiply_packed(PackedProduct<float>{.M = N,
                                         .transpose_a = true,
                                         .a = d,
                                         .a_pitch = N,
                                         .b = {room.way, D, rows, room.hidden.raw()},
                                         .bias = nullptr,
                                         .c = d_weight + panel * room.size * D,
                                         .c_pitch = D,
                                         .accumulate = begin > 0});
  }

  void add_gradients(Tensor& d_hidden, Tensor& d_weight) const {
    const int64_t per_group = (room.panels + kGroups - 1) / kGroups, size = rows * room.D;
    const int64_t groups = (room.panels + per_group - 1) / per_group;
    PackedB{room.way, room.D, rows, room.hidden.raw()}.pack(false, hidden(), room.D);
    float *sums = room.d_hidden.data<float>(), *to_weight = d_weight.data<float>();
    parallel_for(room.panels, per_group, [&](int64_t first, int64_t end) {
      float* sum = sums + first / per_group * size;
      for (int64_t p = first; p < end; ++p) backward(p, p == first, sum, to_weight);
    });
    const Output<float> out(d_hidden);
    parallel_for(size, kGrain, [&](int64_t first, int64_t end) {
      float* sum = sums + first;
      for (int64_t g = 1; g < groups; ++g) {
        const float* next = sum + g * size;
        write_range(sum, true, 0, end - first, [=](int64_t i) { return next[i]; });
      }
      out.write(begin * room.D + first, end - first, [=](int64_t i) { return sum[i]; });
    });
  }
};

}  // namespace

void bfloat16_cross_entropy(const CrossEntropyArgs& args, Tensor losses, Tensor d_hidden,
                            Tensor d_weight, BFloat16Way way) {
  const int64_t R = args.hidden.dim(0);
  if (R == 0) return;
  const int64_t slices = (R + kMostRows - 1) / kMostRows, rows = (R + slices - 1) / slices;
  Room room = {.way = way, .rows = rows, .vocab = args.weight.dim(0), .D = args.weight.dim(1)};
  for (int64_t begin = 0; begin < R; begin += rows) {
    const Slice slice = {args, room, begin, std::min(rows, R - begin)};
    parallel_for(room.panels, 1, [&](int64_t first, int64_t end) {
      for (int64_t p = first; p < end; ++p) slice.forward(p);
    });
    slice.finish_rows(losses.data<float>());
    if (d_hidden) slice.add_gradients(d_hidden, d_weight);
  }
}

}  // namespace regla::cpu
