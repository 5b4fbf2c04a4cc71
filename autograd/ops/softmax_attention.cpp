#include "autograd/ops/op.h"

namespace regla {
namespace {

struct SoftmaxAttention : Op {
  SoftmaxAttentionArgs args;
  Tensor o, log_sum;
  explicit SoftmaxAttention(SoftmaxAttentionArgs settings) : args(std::move(settings)) {}
  const char* name() const override { return "softmax_attention"; }

  Tensors forward(const Tensors& in) override {
    args.q = in[0];
    args.k = in[1];
    args.v = in[2];
    const Shape heads = args.q.shape().drop_last();
    o = Tensor::empty(heads.append(args.v.dim(3)), args.q.dtype(), args.q.device());
    log_sum = Tensor::empty(heads, sum_type(o.dtype()), o.device());
    kernels_of(o).softmax_attention(args, o, log_sum);
    return {o};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    kernels_of(o).softmax_attention_backward(args, o, log_sum, d_out[0], d_in[0]->sink(args.q),
                                             d_in[1]->sink(args.k), d_in[2]->sink(args.v));
  }
};

/// Every query sees at least its own key.
void check_visible(const Tensor& first, int64_t past) {
  if (!first.device().is_cpu()) return;
  const int64_t steps = first.dim(1);
  const int32_t* entry = first.data<int32_t>();
  for (int64_t i = 0; i < first.numel(); ++i) {
    check(entry[i] <= past + i % steps, "[softmax_attention] expected a first key of at most ",
          past + i % steps, " for query ", i % steps, ", got ", entry[i]);
  }
}

}  // namespace

Var softmax_attention(const Var& q, const Var& k, const Var& v, const Tensor& first, int64_t window,
                      double scale, int64_t length) {
  check_rank("softmax_attention", "q", q, 4);
  check_rank("softmax_attention", "k", k, 4);
  check_rank("softmax_attention", "v", v, 4);
  const int64_t B = q.dim(0), steps = q.dim(1), H = q.dim(2), capacity = k.dim(1);
  if (length == 0) length = capacity;
  check(steps > 0 && length >= steps && length <= capacity, "[softmax_attention] expected ", steps,
        " to ", capacity, " keys for queries ", q.shape(), ", got ", length);
  check_same("softmax_attention", "k", k, {B, capacity, H, q.dim(3)}, q.value.dtype());
  check_same("softmax_attention", "v", v, {B, capacity, H, v.dim(3)}, q.value.dtype());
  check(window >= 0, "[softmax_attention] expected a window of at least 0, got ", window);
  if (first) {
    check_indices("softmax_attention", "first", first, {B, steps});
    check_visible(first, length - steps);
  }
  SoftmaxAttentionArgs args = {{}, {}, {}, length, first, window, scale};
  return apply(SoftmaxAttention(std::move(args)), {q, k, v})[0];
}

}  // namespace regla
