#include <algorithm>

#include "backends/copies.h"
#include "backends/cuda/columns.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/product.h"
#include "backends/linear.h"

// Linear layers that read the same x: their d_y lie side by side and their weights one below the
// other, so that the sum of products that d_x is becomes one product, rounded once, and the
// gradients of the weights another. Most kernels write their d_y there themselves; one pass brings
// in the others and adds up the columns whose sums nobody has.
namespace regla::cuda {
namespace {

/// Parts of a matrix, side by side or one below the other.
struct Cuts {
  int count = 0;
  int64_t first[kMostSideBySide + 1] = {};  // the column or row that each begins with, and the end

  __host__ __device__ int64_t total() const { return first[count]; }
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
  View at[kMostSideBySide];
};

/// What becomes of columns [c, c + W) of row r of `all` [R, N]: they come from the part's own row,
/// where it has one, and are added up, where it wants their sums.
template <class T, int W>
struct SideBySide {
  using Fetched = Pack<T, W>;

  Cuts cuts;
  Views<const Fetched*> own;
  bool wants_sums[kMostSideBySide];
  Fetched* all;

  struct Place {
    const Fetched* from;  // in the first row; null: nothing is to be done
    int64_t packs;        // of its rows
    Fetched* to;          // in the first row, or null: they are there
  };
  __device__ Place place(int64_t c) const {
    const int part = cuts.part_of(c);
    Fetched* const there = all + c / W;
    if (own.at[part] != nullptr) {
      return {own.at[part] + (c - cuts.first[part]) / W, cuts.size(part) / W, there};
    }
    return {wants_sums[part] ? there : nullptr, cuts.total() / W, nullptr};
  }
  __device__ Fetched fetch(int64_t r, const Place& place) const {
    Fetched raw;
    if (place.from != nullptr) raw = place.from[r * place.packs];
    return raw;
  }
  __device__ void add(int64_t r, const Place& place, const Fetched& raw,
                      float (&total)[1][W]) const {
    if (place.from == nullptr) return;
    float v[W];
    Typed<T>::template unpack<W>(raw, v);
    for (int w = 0; w < W; ++w) total[0][w] += v[w];
    if (place.to != nullptr) place.to[r * (cuts.total() / W)] = raw;
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
    return parts.size() > 1 && parts.size() <= kMostSideBySide && args.x.numel() > 0 &&
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
    const Tensor d_y =
        args_.side_by_side ? args_.side_by_side : Tensor::empty({rows_, N}, dtype_, on_.device);
    complete(d_y);
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
    Product of_weights = {
        .a = Matrices::of(d_y), .b = Matrices::of(args_.x), .c = {}, .transpose_a = true};
    if (const Sink* first = weights_in_a_row()) {
      of_weights.c = Matrices::of(first->tensor);
      of_weights.c.rows = N;
      of_weights.accumulate = first->accumulate;
      return multiply(on_, of_weights);
    }
    const Tensor d_weights = Tensor::empty({N, D_}, DType::F32, on_.device);
    of_weights.c = Matrices::of(d_weights);
    multiply(on_, of_weights);
    hand_out(elements_, d_weights, &LinearGradients::Part::d_weight);
  }

 private:
  using Part = LinearGradients::Part;

  /// Brings to `d_y` what does not lie there, and adds up the columns whose sums are wanted.
  void complete(const Tensor& d_y) const {
    Tensor all = d_y;
    SideBySide<T, W> pass = {
        columns_, sources(&Part::d_y), {}, static_cast<Pack<T, W>*>(all.raw())};
    bool has_work = false;
    for (size_t i = 0; i < args_.parts.size(); ++i) {
      const Part& part = args_.parts[i];
      pass.wants_sums[i] = static_cast<bool>(part.d_bias);
      has_work = has_work || part.d_y.defined() || part.d_bias;
    }
    if (!has_work) return;
    const Tensor d_bias = Tensor::empty({columns_.total()}, DType::F32, on_.device);
    sum_columns<W>(on_, rows_, columns_.total(), pass,
                   ColumnSums<float, 1>{{Result<float>(d_bias)}});
    hand_out(columns_, d_bias, &Part::d_bias);
  }

  /// The first sink of a weight's gradient where those of all lie one below the other and all are
  /// written, or all added to; else null.
  const Sink* weights_in_a_row() const {
    const Sink& first = args_.parts.front().d_weight;
    if (!first) return nullptr;
    const auto* next = static_cast<const char*>(first.tensor.raw());
    for (const Part& part : args_.parts) {
      const Sink& sink = part.d_weight;
      if (!sink || sink.tensor.raw() != next || sink.accumulate != first.accumulate ||
          sink.tensor.dtype() != DType::F32) {
        return nullptr;
      }
      next += sink.tensor.bytes();
    }
    return &first;
  }

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
  for (LinearGradients::Part& part : narrow.parts) {
    if (part.d_y) part.d_y = converted(part.d_y, dtype);
  }
  if (dtype == DType::BF16 && Joint<__nv_bfloat16>::takes(narrow)) {
    return Joint<__nv_bfloat16>(narrow).run(d_x);
  }
  if (dtype == DType::F32 && Joint<float>::takes(narrow)) return Joint<float>(narrow).run(d_x);
  check(!args.side_by_side, "[linear_backward] expected rows and weights in whole packs");
  linear_backward_by_parts(narrow, d_x);
}

}  // namespace regla::cuda
