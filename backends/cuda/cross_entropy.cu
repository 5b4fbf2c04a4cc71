#include <algorithm>

#include "backends/copies.h"
#include "backends/cuda/kernels.h"
#include "backends/cuda/product.h"
#include "backends/cuda/rows.cuh"

// Rows by slices: the logits of a slice in the sum type, the losses and, in the type of the
// activations, the gradients of the logits by one kernel, and two products of those. The gradient
// of the weights adds up over the slices in the sum type.
namespace regla::cuda {
namespace {

constexpr int kRowThreads = 1024;

/// Rows of a slice: the more, the less often the gradient of the weights, which each slice adds to,
/// is read and written; at most 512 MB of logits.
int64_t slice_rows(int64_t vocab) {
  constexpr int64_t kMostRows = 2048, kTile = 128, kMostLogits = int64_t{128} << 20;
  const int64_t rows = std::min(kMostRows, kMostLogits / vocab / kTile * kTile);
  return std::max(rows, kTile);
}

/// Elements from row to row: cuBLASLt is fastest where every row begins at 16 bytes.
int64_t padded(int64_t vocab) { return (vocab + 7) / 8 * 8; }

// loss = -log softmax(row)[target];  d_logits = scale * (softmax(row) - one_hot(target))
// Bytes: logits and d_logits once, as far as registers and the nearest caches hold a row.
template <class S, int W>
struct CrossEntropyRow {
  int64_t vocab, pitch;
  Elements<S> logits;
  const int32_t* targets;
  S scale;
  Numbers losses;
  Result<S> d_logits;  // of the same pitch, or in the same place

  __device__ void operator()(const Team& team, int64_t row) const {
    constexpr int kHeld = 6;  // loads of a row that stay in a thread's registers
    const int64_t first = row * pitch;
    const int32_t target = team.is_active ? targets[row] : -1;
    const S score = team.leads() && target >= 0 ? logits[first + target] : S(0);
    const HeldRow<S, W, kHeld> held(team, logits, first, pitch);
    S largest = -std::numeric_limits<S>::infinity(), sum = 0;
    held.each([&](int64_t j, const S(&v)[W]) {
      for (int w = 0; w < W; ++w) {
        if (j + w < vocab) largest = largest > v[w] ? largest : v[w];
      }
    });
    largest = team.max(largest);
    held.each([&](int64_t j, const S(&v)[W]) {
      for (int w = 0; w < W; ++w) {
        if (j + w < vocab) sum += exp(v[w] - largest);
      }
    });
    sum = team.sum(sum);
    if (team.leads()) {
      const double loss = log(static_cast<double>(sum)) + largest - score;
      losses.set(row, target < 0 ? 0.0 : loss);
    }
    if (!d_logits) return;
    const S factor = scale / sum;
    held.each([&](int64_t j, const S(&v)[W]) {
      S d[W];
      for (int w = 0; w < W; ++w) {
        d[w] = target < 0 ? S(0) : factor * exp(v[w] - largest) - (j + w == target ? scale : S(0));
      }
      d_logits.put(first + j, d);  // what lies behind the vocabulary is nobody's
    });
  }
};

/// Rows [begin, begin + rows) of hidden [R, D], weight [vocab, D] of the same type.
struct Slice {
  const Context& on;
  Matrices hidden, weight, logits, d_logits;

  void compute_logits() const {
    multiply(on, {.a = hidden, .b = weight, .c = logits, .transpose_b = true});
  }

  void add_gradients(const Matrices& d_hidden, const Matrices& d_weight, bool is_first) const {
    multiply(on, {.a = d_logits, .b = weight, .c = d_hidden});
    multiply(
        on,
        {.a = d_logits, .b = hidden, .c = d_weight, .transpose_a = true, .accumulate = !is_first});
  }
};

template <class S>
void compute_losses(const Slice& slice, const CrossEntropyArgs& args, const Tensor& targets,
                    const Tensor& logits, const Tensor& losses, const Tensor& d_logits) {
  constexpr int W = std::is_same_v<S, float> ? kWide : 1;
  for_each_row<W, kRowThreads>(slice.on, slice.logits.rows, slice.logits.pitch,
                               CrossEntropyRow<S, W>{.vocab = slice.logits.columns,
                                                     .pitch = slice.logits.pitch,
                                                     .logits = Elements<S>(logits),
                                                     .targets = targets.data<int32_t>(),
                                                     .scale = static_cast<S>(args.scale),
                                                     .losses = Numbers(losses),
                                                     .d_logits = Result<S>(d_logits)});
}

/// The first `rows` rows of a buffer [most, pitch], without what pads them.
Matrices part_of(const Tensor& buffer, int64_t rows, int64_t columns) {
  Matrices part = Matrices::of(buffer);
  part.rows = rows;
  part.columns = columns;
  return part;
}

}  // namespace

void cross_entropy(const CrossEntropyArgs& args, Tensor losses, Tensor d_hidden, Tensor d_weight) {
  const Context& on = context(losses);
  const int64_t R = args.hidden.dim(0), vocab = args.weight.dim(0);
  const bool is_one_type = args.hidden.dtype() == args.weight.dtype();
  const DType dtype = is_one_type ? args.hidden.dtype() : DType::F32;
  const Tensor hidden = converted(args.hidden, dtype), weight = converted(args.weight, dtype);
  for_sum_type(dtype, "cross_entropy", [&](auto tag) {
    using S = decltype(tag);
    const int64_t most = std::min(slice_rows(vocab), R), pitch = padded(vocab);
    const Tensor logits = Tensor::empty({most, pitch}, dtype_of<S>, on.device);
    Tensor d_logits;
    if (d_hidden) {
      const bool in_place = dtype == dtype_of<S>;
      d_logits = in_place ? logits : Tensor::empty({most, pitch}, dtype, on.device);
    }
    for (int64_t begin = 0; begin < R; begin += most) {
      const int64_t rows = std::min(most, R - begin), end = begin + rows;
      const Slice slice = {.on = on,
                           .hidden = Matrices::of(hidden.slice(begin, end)),
                           .weight = Matrices::of(weight),
                           .logits = part_of(logits, rows, vocab),
                           .d_logits = d_hidden ? part_of(d_logits, rows, vocab) : Matrices{}};
      slice.compute_logits();
      compute_losses<S>(slice, args, args.targets.slice(begin, end), logits,
                        losses.slice(begin, end), d_logits);
      if (d_hidden) {
        slice.add_gradients(Matrices::of(d_hidden.slice(begin, end)), Matrices::of(d_weight),
                            begin == 0);
      }
    }
  });
}

}  // namespace regla::cuda
