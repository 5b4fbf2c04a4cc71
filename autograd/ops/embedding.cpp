#include "autograd/ops/op.h"

namespace regla {
namespace {

struct Embedding : Op {
  Tensor ids;
  Shape table_shape;
  explicit Embedding(Tensor which) : ids(std::move(which)) {}
  const char* name() const override { return "embedding"; }

  Tensors forward(const Tensors& in) override {
    table_shape = in[0].shape();
    Tensor y =
        Tensor::empty(ids.shape().append(in[0].dim(1)), sum_type(in[0].dtype()), in[0].device());
    kernels_of(y).embedding(ids, in[0], y);
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    const Tensor& d_y = d_out[0];
    kernels_of(d_y).embedding_backward(ids, d_y, d_in[0]->sink(table_shape, d_y.device()));
  }
};

}  // namespace

Var embedding(const Tensor& ids, const Var& table) {
  check_rank("embedding", "table", table, 2);
  if (table.value.dtype() == DType::BF16) check_no_gradient("embedding", {table});
  check(ids.dtype() == DType::I32, "[embedding] expected ids I32, got ", name_of(ids.dtype()));
  return apply(Embedding(ids), {table})[0];
}

}  // namespace regla
