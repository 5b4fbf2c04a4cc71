#include "backends/cpu/bfloat16_cross_entropy.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "backends/cpu/elements.h"
#include "backends/cpu/vector_math.h"

// By panels of the vocabulary, each the work of one thread while it stays in its caches. With x the
// logits of a row, forward keeps of each panel its largest x and the sum of e^(x - largest), from
// which follow log_sum and the loss; backward makes d = scale * (e^(x - log_sum) - one_hot) of a
// panel, in BF16, and multiplies it twice:
//     d_hidden += d W_panel          d_W_panel += d^T hidden
// Panels share d_hidden in a fixed number of groups, whose sums are added in order.
namespace regla::cpu {
namespace {

constexpr int64_t kGroups = 8;
constexpr int64_t kMostRows = 512;  // of a slice: the logits of so many exist at a time

/// Columns of a panel: few enough for the second-level cache, but panels for all threads.
int64_t panel_size(int64_t vocab) {
  return std::clamp<int64_t>((vocab / (2 * kGroups) + 63) / 64 * 64, 64, 512);
}

/// Memory for each thread and for the panels of a slice.
struct Room {
  BFloat16Way way;
  int64_t rows, vocab, D, size = panel_size(vocab), panels = (vocab + size - 1) / size;
  int64_t b_bytes = std::max(PackedB::bytes(way, size, D), PackedB::bytes(way, D, size));
  Tensor logits = Tensor::empty({panels, rows, size}, DType::F32);
  Tensor largest = Tensor::empty({panels, rows}, DType::F32), sums = Tensor::empty_like(largest);
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
  float* logits(int64_t panel) const {
    return room.logits.data<float>() + panel * room.rows * room.size;
  }
  PackedB b_of_thread(int64_t N, int64_t K) const {
    auto* memory = static_cast<char*>(room.b.raw()) + thread_index() * room.b_bytes;
    return {room.way, N, K, memory};
  }

  /// x = hidden W_panel^T, the largest of each row and its sum.
  void forward(int64_t panel) const {
    const int64_t N = columns(panel);
    const PackedB b = b_of_thread(N, room.D);
    b.pack(true, weight(panel), room.D);
    float* x = logits(panel);
    multiply_packed(PackedProduct<float>{.M = rows,
                                         .transpose_a = false,
                                         .a = hidden(),
                                         .a_pitch = room.D,
                                         .b = b,
                                         .bias = nullptr,
                                         .c = x,
                                         .c_pitch = N,
                                         .accumulate = false});
    float* largest = room.largest.data<float>() + panel * room.rows;
    float* sums = room.sums.data<float>() + panel * room.rows;
    for (int64_t r = 0; r < rows; ++r) {
      const float* row = x + r * N;
      // Not -infinity, which must not be subtracted from itself.
      const float most = max_of(std::numeric_limits<float>::lowest(), row, N);
      largest[r] = most;
      sums[r] = sum_of(N, [=](int64_t j) { return math::exp(row[j] - most); });
    }
  }

  /// losses = log_sum - x[target]; `largest` and `sums` of panel 0 become those of the row.
  void finish_rows(float* losses) const {
    const int32_t* targets = args.targets.data<int32_t>() + begin;
    float *largest = room.largest.data<float>(), *sums = room.sums.data<float>();
    for (int64_t r = 0; r < rows; ++r) {
      float most = largest[r], sum = 0;
      for (int64_t p = 1; p < room.panels; ++p) most = std::max(most, largest[p * room.rows + r]);
      for (int64_t p = 0; p < room.panels; ++p) {
        sum += sums[p * room.rows + r] * math::exp(largest[p * room.rows + r] - most);
      }
      largest[r] = most;
      sums[r] = sum;
      if (const int64_t target = targets[r]; target < 0) {
        losses[begin + r] = 0;
      } else {
        const int64_t panel = target / room.size;
        const float score = logits(panel)[r * columns(panel) + target % room.size];
        losses[begin + r] = math::log(sum) + most - score;
      }
    }
  }

  /// d of a panel, in the memory of this thread.
  const BFloat16* gradient(int64_t panel) const {
    const int64_t N = columns(panel);
    const int32_t* targets = args.targets.data<int32_t>() + begin;
    const float *largest = room.largest.data<float>(), *sums = room.sums.data<float>();
    const auto scale = static_cast<float>(args.scale);
    BFloat16* d = room.d.data<BFloat16>() + thread_index() * room.rows * room.size;
    std::vector<float> exact(static_cast<size_t>(N));
    float* row = exact.data();
    for (int64_t r = 0; r < rows; ++r) {
      if (targets[r] < 0) {
        std::fill_n(d + r * N, N, BFloat16());
        continue;
      }
      const float* x = logits(panel) + r * N;
      const float most = largest[r], factor = scale / sums[r];
      write_range(row, false, 0, N, [=](int64_t j) { return factor * math::exp(x[j] - most); });
      const int64_t target = targets[r] - panel * room.size;
      if (target >= 0 && target < N) row[target] -= scale;
      narrow(row, N, d + r * N);
    }
    return d;
  }

  /// The two products of d of a panel, the first of a group beginning its sum.
  void backward(int64_t panel, bool is_first, float* d_hidden, float* d_weight) const {
    const int64_t N = columns(panel), D = room.D;
    const BFloat16* d = gradient(panel);
    const PackedB b = b_of_thread(D, N);
    b.pack(false, weight(panel), D);
    const PackedB packed_hidden = {room.way, D, rows, room.hidden.raw()};
    PackedProduct<float> product = {.M = rows,
                                    .transpose_a = false,
                                    .a = d,
                                    .a_pitch = N,
                                    .b = b,
                                    .bias = nullptr,
                                    .c = d_hidden,
                                    .c_pitch = D,
                                    .accumulate = !is_first};
    multiply_packed(product);
    product.M = N;
    product.transpose_a = true;
    product.b = packed_hidden;
    product.c = d_weight + panel * room.size * D;
    product.accumulate = begin > 0;
    multiply_packed(product);
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
