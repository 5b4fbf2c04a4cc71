#include <algorithm>

#include "backends/copies.h"
#include "backends/cuda/columns.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/product.h"
#include "backends/linear.h"

// Linear layers that read the same x: their d_y are laid side by side and their weights one below
// the other, so that the sum of products that d_x is becomes one product, rounded once, and the
// gradients of the weights another. The pass that lays d_y out adds up its columns.
namespace regla::cuda {
namespace {

constexpr int kMostParts = 16;

/// Parts of a matrix, side by side or one below the other.
struct Cuts {
  int count = 0;
  int64_t first[kMostParts + 1] = {};  // the column or row that each begins with, and the end

  int64_t total() const { return first[count]; }
  __device__ int part_of(int64_t place) const {
    int part = 0;
    while (place >= first[part + 1]) ++part;
    return part;
  }
  __device__ int64_t size(int part) const { return first[part + 1] - first[part]; }
};

/// Something of each part.
template <class View>
struct Views {
  View at[kMostParts];
};

/// Columns [c, c + W) of row r of `to` [R, N], from the part's own row.
template <class T, int W>
struct SideBySide {
  Cuts cuts;
  Views<const Pack<T, W>*> from;
  Result<float> to;
  int64_t pitch;

  using Fetched = Pack<T, W>;
  struct Place {
    const Fetched* from;  // in the part's first row
    int64_t packs, c;     // of the part's rows; in `to`
  };
  __device__ Place place(int64_t c) const {
    const int part = cuts.part_of(c);
    return {from.at[part] + (c - cuts.first[part]) / W, cuts.size(part) / W, c};
  }
  __device__ Fetched fetch(int64_t r, const Place& place) const {
    return place.from[r * place.packs];
  }
  __device__ void add(int64_t r, const Place& place, const Fetched& raw,
                      float (&total)[1][W]) const {
    float v[W];
    Typed<T>::template unpack<W>(raw, v);
    for (int w = 0; w < W; ++w) total[0][w] += v[w];
    to.put(r * pitch + place.c, v);
  }
};

/// to[i, i + W), of all rows, from the part that has the row.
template <class T, int W>
struct OneBelowTheOther {
  Cuts cuts;  // elements
  Views<const Pack<T, W>*> from;
  Result<float> to;

  __device__ void operator()(int64_t i) const {
    const int part = cuts.part_of(i);
    float v[W];
    Typed<T>::template unpack<W>(from.at[part][(i - cuts.first[part]) / W], v);
    to.put(i, v);
  }
};

/// The other way: what was computed for all, to where each part's is wanted.
template <int W>
struct HandedOut {
  Cuts cuts;  // elements
  Typed<float> from;
  Views<Result<float>> to;

  __device__ void operator()(int64_t i) const {
    const int part = cuts.part_of(i);
    if (!to.at[part]) return;
    float v[W];
    from.load(i, v);
    to.at[part].put(i - cuts.first[part], v);
  }
};

template <int W, class F>
void for_each_pack(const Context& on, int64_t count, const F& f) {
  for_each(on, count / W, [=] __device__(int64_t pack) { f(pack * W); });
}

/// All parts at once; x, weights and d_y are T, of which W elements take 16 bytes.
template <class T>
class Joint {
 public:
  static constexpr int W = 16 / sizeof(T);

  /// Whether there are several parts, all of whole packs.
  static bool takes(const LinearGradients& args) {
    const auto& parts = args.parts;
    return parts.size() > 1 && parts.size() <= kMostParts && args.x.numel() > 0 &&
           args.x.dim(1) % W == 0 &&
           std::all_of(parts.begin(), parts.end(), [](const LinearGradients::Part& part) {
             return part.weight.dim(0) % W == 0 &&
                    are_aligned<W>(part.d_y, part.weight, part.d_weight.tensor, part.d_bias.tensor);
           });
  }

  explicit Joint(const LinearGradients& args)
      : args_(args),
        on_(context(args.x)),
        dtype_(args.x.dtype()),
        rows_(args.x.dim(0)),
        D_(args.x.dim(1)) {
    for (const LinearGradients::Part& part : args.parts) {
      columns_.first[columns_.count + 1] = columns_.total() + part.weight.dim(0);
      elements_.first[columns_.count + 1] = columns_.first[columns_.count + 1] * D_;
      elements_.count = ++columns_.count;
    }
  }

  void run(const Sink& d_x) const {
    const int64_t N = columns_.total();
    const Tensor d_y = Tensor::empty({rows_, N}, dtype_, on_.device);
    const Tensor d_bias = Tensor::empty({N}, DType::F32, on_.device);
    sum_columns<W>(
        on_, rows_, N,
        SideBySide<T, W>{columns_, sources(&LinearGradients::Part::d_y), Result<float>(d_y), N},
        ColumnSums<float, 1>{{Result<float>(d_bias)}});
    hand_out(columns_, d_bias, &LinearGradients::Part::d_bias);
    if (d_x) {
      const Tensor weights = Tensor::empty({N, D_}, dtype_, on_.device);
      for_each_pack<W>(on_, N * D_,
                       OneBelowTheOther<T, W>{elements_, sources(&LinearGradients::Part::weight),
                                              Result<float>(weights)});
      multiply(on_, {.a = Matrices::of(d_y),
                     .b = Matrices::of(weights),
                     .c = Matrices::of(d_x.tensor),
                     .accumulate = d_x.accumulate});
    }
    const Tensor d_weights = Tensor::empty({N, D_}, DType::F32, on_.device);
    multiply(on_, {.a = Matrices::of(d_y),
                   .b = Matrices::of(args_.x),
                   .c = Matrices::of(d_weights),
                   .transpose_a = true});
    hand_out(elements_, d_weights, &LinearGradients::Part::d_weight);
  }

 private:
  Views<const Pack<T, W>*> sources(Tensor LinearGradients::Part::*which) const {
    Views<const Pack<T, W>*> sources = {};
    for (size_t i = 0; i < args_.parts.size(); ++i) {
      sources.at[i] = static_cast<const Pack<T, W>*>(storage_of<float>(args_.parts[i].*which));
    }
    return sources;
  }

  void hand_out(const Cuts& cuts, const Tensor& from, Sink LinearGradients::Part::*which) const {
    Views<Result<float>> targets;
    for (size_t i = 0; i < args_.parts.size(); ++i) {
      targets.at[i] = Result<float>(args_.parts[i].*which);
    }
    for_each_pack<kWide>(on_, cuts.total(), HandedOut<kWide>{cuts, Typed<float>(from), targets});
  }

  const LinearGradients& args_;
  const Context& on_;
  DType dtype_;
  int64_t rows_, D_;
  Cuts columns_, elements_;
};

}  // namespace

void linear_backward(const LinearGradients& args, Sink d_x) {
  const DType dtype = args.x.dtype();
  LinearGradients narrow = args;  // operands of products are, as they were in forward
  for (LinearGradients::Part& part : narrow.parts) part.d_y = converted(part.d_y, dtype);
  if (dtype == DType::BF16 && Joint<__nv_bfloat16>::takes(narrow)) {
    return Joint<__nv_bfloat16>(narrow).run(d_x);
  }
  if (dtype == DType::F32 && Joint<float>::takes(narrow)) return Joint<float>(narrow).run(d_x);
  linear_backward_by_parts(narrow, d_x);
}

}  // namespace regla::cuda
