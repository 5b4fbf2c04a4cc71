#include <memory>

#include "backends/cuda/context.h"
#include "backends/cuda/kernels.h"
#include "core/check.h"

namespace regla::cuda {
namespace {

/// Destroys a description of cuBLASLt's at the end of a scope.
template <class T, cublasStatus_t (*Destroy)(T)>
struct Destroyed {
  void operator()(T description) const { Destroy(description); }
};
template <class T, cublasStatus_t (*Destroy)(T)>
using Owned = std::unique_ptr<std::remove_pointer_t<T>, Destroyed<T, Destroy>>;
using Product = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

cudaDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::F64:
      return CUDA_R_64F;
    case DType::BF16:
      return CUDA_R_16BF;
    default:
      return CUDA_R_32F;
  }
}

/// cuBLASLt counts columns: a row-major [rows, columns] is its column-major [columns, rows].
Layout layout_of(const Tensor& x) {
  cublasLtMatrixLayout_t layout;
  require(cublasLtMatrixLayoutCreate(&layout, type_of(x.dtype()), x.dim(1), x.dim(0), x.dim(1)),
          "describe a matrix");
  return Layout(layout);
}

template <class T>
void set(const Product& product, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  require(cublasLtMatmulDescSetAttribute(product.get(), attribute, &value, sizeof value),
          "describe a product");
}

Product describe(const MatmulArgs& args, DType dtype) {
  const bool is_double = dtype == DType::F64;
  cublasLtMatmulDesc_t description;
  require(
      cublasLtMatmulDescCreate(&description, is_double ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F,
                               is_double ? CUDA_R_64F : CUDA_R_32F),
      "describe a product");
  Product product(description);
  // c^T = op(b)^T op(a)^T
  set(product, CUBLASLT_MATMUL_DESC_TRANSA, args.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(product, CUBLASLT_MATMUL_DESC_TRANSB, args.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (args.bias) {
    set(product, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, args.bias.raw());
    set(product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type_of(args.bias.dtype()));
  }
  return product;
}

/// The first of the algorithms that cuBLASLt thinks best for a product.
cublasLtMatmulAlgo_t chosen(const Context& on, const Product& product, const Layout& a,
                            const Layout& b, const Layout& c) {
  cublasLtMatmulPreference_t made;
  require(cublasLtMatmulPreferenceCreate(&made), "describe a product");
  const Preference preference(made);
  require(cublasLtMatmulPreferenceSetAttribute(made, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                               &on.workspace_bytes, sizeof on.workspace_bytes),
          "describe a product");
  cublasLtMatmulHeuristicResult_t found;
  int count = 0;
  require(cublasLtMatmulAlgoGetHeuristic(on.products, product.get(), a.get(), b.get(), c.get(),
                                         c.get(), made, 1, &found, &count),
          "choose an algorithm for a product");
  check(count > 0, "[cuda] cuBLASLt has no algorithm for a product");
  return found.algo;
}

}  // namespace

void matmul(const MatmulArgs& args, Sink out) {
  const Context& on = context(out.tensor);
  const DType dtype = out.tensor.dtype();
  const Product product = describe(args, dtype);
  const Layout a = layout_of(args.b), b = layout_of(args.a), c = layout_of(out.tensor);
  const cublasLtMatmulAlgo_t algorithm = chosen(on, product, a, b, c);
  const auto multiply = [&](auto one) {
    const auto beta = static_cast<decltype(one)>(out.accumulate ? 1 : 0);
    void* to = out.tensor.raw();
    require(cublasLtMatmul(on.products, product.get(), &one, args.b.raw(), a.get(), args.a.raw(),
                           b.get(), &beta, to, c.get(), to, c.get(), &algorithm, on.workspace,
                           on.workspace_bytes, on.stream),
            "multiply");
  };
  dtype == DType::F64 ? multiply(1.0) : multiply(1.0F);
}

}  // namespace regla::cuda
