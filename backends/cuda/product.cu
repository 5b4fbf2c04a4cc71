#include <cuda_bf16.h>

#include <array>
#include <map>
#include <memory>
#include <mutex>

#include "backends/cuda/loops.cuh"
#include "backends/cuda/product.h"
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
using Description = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

cudaDataType_t type_of(const Matrices& x) {
  switch (x.dtype) {
    case DType::F64:
      return CUDA_R_64F;
    case DType::BF16:
      return x.is_half ? CUDA_R_16F : CUDA_R_16BF;
    default:
      return CUDA_R_32F;
  }
}

/// cuBLASLt counts columns: a row-major [rows, columns] is its column-major [columns, rows].
Layout layout_of(const Matrices& x, int64_t count) {
  cublasLtMatrixLayout_t layout;
  require(cublasLtMatrixLayoutCreate(&layout, type_of(x), static_cast<uint64_t>(x.columns),
                                     static_cast<uint64_t>(x.rows), x.pitch),
          "describe a matrix");
  Layout owned(layout);
  if (count > 1) {
    const auto matrices = static_cast<int32_t>(count);
    require(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &matrices,
                                             sizeof matrices),
            "describe matrices");
    require(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                             &x.step, sizeof x.step),
            "describe matrices");
  }
  return owned;
}

template <class T>
void set(const Description& product, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  require(cublasLtMatmulDescSetAttribute(product.get(), attribute, &value, sizeof value),
          "describe a product");
}

/// What operands are multiplied and summed in.
cublasComputeType_t arithmetic_of(const Context& on, const Product& product) {
  if (product.c.dtype == DType::F64) return CUBLAS_COMPUTE_64F;
  const bool is_tf32 = on.allows_tf32 && product.a.dtype == DType::F32;
  return is_tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
}

Description describe(const Context& on, const Product& product) {
  const bool is_double = product.c.dtype == DType::F64;
  cublasLtMatmulDesc_t description;
  require(cublasLtMatmulDescCreate(&description, arithmetic_of(on, product),
                                   is_double ? CUDA_R_64F : CUDA_R_32F),
          "describe a product");
  Description owned(description);
  // c^T = op(b)^T op(a)^T
  set(owned, CUBLASLT_MATMUL_DESC_TRANSA, product.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(owned, CUBLASLT_MATMUL_DESC_TRANSB, product.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (product.bias != nullptr) {
    set(owned, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(owned, CUBLASLT_MATMUL_DESC_BIAS_POINTER, product.bias);
    set(owned, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type_of(product.c));
  }
  return owned;
}

/// The largest power of two of bytes, up to 256, that all rows begin at multiples of.
uint32_t alignment_of(const Matrices& x) {
  const auto size = static_cast<uint64_t>(size_of(x.dtype));
  const uint64_t places = reinterpret_cast<uintptr_t>(x.data) |
                          static_cast<uint64_t>(x.pitch) * size |
                          static_cast<uint64_t>(x.step) * size | 256;
  return static_cast<uint32_t>(places & (~places + 1));
}

/// What an algorithm may use: so much workspace, addresses no rounder than these, and parts of sums
/// that are not rounded to a narrow result's type, nor added up in the order in which they arrive.
Preference preference_of(const Product& product, size_t workspace_bytes) {
  cublasLtMatmulPreference_t made;
  require(cublasLtMatmulPreferenceCreate(&made), "describe a product");
  Preference owned(made);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    require(cublasLtMatmulPreferenceSetAttribute(made, attribute, &value, sizeof value),
            "describe a product");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
         static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(product.b));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(product.a));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(product.c));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(product.c));
  return owned;
}

/// Whether a result of narrow operands has a tile for every multiprocessor: then no sum needs to be
/// divided.
bool fills(const Context& on, const Product& product) {
  constexpr int64_t kTile = 128;
  const int64_t tiles = product.c.rows / kTile * (product.c.columns / kTile) * product.count;
  return product.a.dtype == DType::BF16 && tiles >= on.multiprocessors;
}

/// What cuBLASLt thinks best, in this order.
struct Offered {
  static constexpr int kMost = 8;
  cublasLtMatmulHeuristicResult_t at[kMost];
  int count = 0;
};

/// Whether a product is so large, and its result so narrow, that tiles of 256 x 128 pay.
bool is_large(const Product& product) {
  constexpr double kSums = 3e10;
  const Matrices& c = product.c;
  const auto depth = static_cast<double>(product.transpose_a ? product.a.rows : product.a.columns);
  return c.dtype == DType::BF16 && !c.is_half &&
         static_cast<double>(c.rows * c.columns) * depth >= kSums;
}

/// The one that was measured to be fastest: with tiles, in cuBLASLt's numbers, of 256 x 128 for a
/// large product, if that is the first, else of 128 x 128, else of 128 x 160 or 176 x 128, that
/// share their loads in pairs; else the first.
cublasLtMatmulAlgo_t preferred(const Product& product, const Offered& offered) {
  const auto number_of = [](const cublasLtMatmulAlgo_t& algorithm,
                            cublasLtMatmulAlgoConfigAttributes_t attribute, auto number) {
    size_t written = 0;
    require(cublasLtMatmulAlgoConfigGetAttribute(&algorithm, attribute, &number, sizeof number,
                                                 &written),
            "choose an algorithm for a product");
    return static_cast<int>(number);
  };
  const auto is_paired = [&](const cublasLtMatmulAlgo_t& algorithm, int tile) {
    if (number_of(algorithm, CUBLASLT_ALGO_CONFIG_TILE_ID, uint32_t{0}) != tile) return false;
    const int pair = number_of(algorithm, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, uint16_t{0});
    return pair == CUBLASLT_CLUSTER_SHAPE_2x1x1 || pair == CUBLASLT_CLUSTER_SHAPE_1x2x1;
  };
  const cublasLtMatmulAlgo_t& first = offered.at[0].algo;
  if (is_large(product) && is_paired(first, 24)) return first;
  for (const int tile : {20, 29, 201}) {
    for (int i = 0; i < offered.count; ++i) {
      if (is_paired(offered.at[i].algo, tile)) return offered.at[i].algo;
    }
  }
  return first;
}

/// A product as cuBLASLt knows it, for matrices that lie anywhere.
struct Plan {
  Description description;
  Layout a, b, c;
  cublasLtMatmulAlgo_t algorithm;
  size_t workspace_bytes = 0;

  Plan(const Context& on, const Product& product)
      : description(describe(on, product)),
        a(layout_of(product.b, product.count)),
        b(layout_of(product.a, product.count)),
        c(layout_of(product.c, product.count)) {
    Offered offered;
    // Without a workspace there are no counters in it to be cleared before each product: in a graph
    // the kernels on both sides of that wait 6 us for it.
    if (fills(on, product)) ask(on, product, 0, offered);
    if (offered.count > 0) {
      algorithm = preferred(product, offered);
      return;
    }
    workspace_bytes = on.workspace_bytes;
    require(ask(on, product, workspace_bytes, offered), "choose an algorithm for a product");
    check(offered.count > 0, "[cuda] cuBLASLt has no algorithm for a product");
    algorithm = offered.at[0].algo;
  }

 private:
  cublasStatus_t ask(const Context& on, const Product& product, size_t most_bytes,
                     Offered& offered) const {
    return cublasLtMatmulAlgoGetHeuristic(on.products, description.get(), a.get(), b.get(), c.get(),
                                          c.get(), preference_of(product, most_bytes).get(),
                                          Offered::kMost, offered.at, &offered.count);
  }
};

/// Everything that a plan follows from.
using Form = std::array<int64_t, 24>;
Form form_of(const Context& on, const Product& product) {
  Form form = {};
  auto* next = form.data();
  for (const int64_t x :
       {int64_t{on.device.index}, int64_t{arithmetic_of(on, product)}, int64_t{product.transpose_a},
        int64_t{product.transpose_b}, int64_t{product.bias != nullptr}, product.count}) {
    *next++ = x;
  }
  for (const Matrices* x : {&product.a, &product.b, &product.c}) {
    for (const int64_t number : {int64_t{alignment_of(*x)}, static_cast<int64_t>(type_of(*x)),
                                 x->rows, x->columns, x->pitch, x->step}) {
      *next++ = number;
    }
  }
  return form;
}

/// Plans are kept: a model asks for the same few products again and again, and the choice of an
/// algorithm takes the host longer than a small product takes the GPU.
class Plans {
 public:
  const Plan& of(const Context& on, const Product& product) {
    const Form form = form_of(on, product);
    const auto found = plans_.find(form);
    if (found != plans_.end()) return found->second;
    if (plans_.size() == kMost) plans_.clear();  // prompts of every length, say
    return plans_.try_emplace(form, on, product).first->second;
  }

 private:
  static constexpr size_t kMost = 1024;
  std::map<Form, Plan> plans_;
};

/// c += op(a) op(b) in BF16: cuBLASLt may round the product before it adds, here it is summed in
/// F32 and rounded once. The tape adds up in the type of sums, so this is seldom asked for.
void add_narrow(const Context& on, Product product) {
  const Matrices c = product.c;
  Tensor sums = Tensor::empty({product.count, c.rows, c.columns}, DType::F32, on.device);
  product.c = {sums.raw(), DType::F32, c.rows, c.columns, c.columns, c.rows * c.columns};
  product.accumulate = false;
  multiply(on, product);
  const auto* from = sums.data<float>();
  auto* to = static_cast<__nv_bfloat16*>(c.data);
  for_each(on, sums.numel(), [=] __device__(int64_t i) {
    const int64_t row = i / c.columns;
    const int64_t place = row / c.rows * c.step + row % c.rows * c.pitch + i % c.columns;
    to[place] = __float2bfloat16_rn(__bfloat162float(to[place]) + from[i]);
  });
}

}  // namespace

namespace {

/// Initcheck does not see what kernels of cuBLASLt store by bulk copies.
void mark_written([[maybe_unused]] const Context& on, [[maybe_unused]] const Product& product) {
#ifdef REGLA_WATCHED_MEMORY
  const Matrices& c = product.c;
  const auto bytes = [&](int64_t n) { return static_cast<size_t>(n) * size_of(c.dtype); };
  for (int64_t i = 0; i < product.count && !product.accumulate; ++i) {
    char* const matrix = static_cast<char*>(c.data) + bytes(i * c.step);
    require(cudaMemset2DAsync(matrix, bytes(c.pitch), 0, bytes(c.columns),
                              static_cast<size_t>(c.rows), on.stream),
            "clear a product");
  }
#endif
}

}  // namespace

void multiply(const Context& on, const Product& product) {
  const Matrices& c = product.c;
  if (c.rows == 0 || c.columns == 0 || product.count == 0) return;
  if (product.accumulate && c.dtype == DType::BF16) return add_narrow(on, product);
  mark_written(on, product);
  static std::mutex mutex;
  static Plans& plans = *new Plans;  // outlives the driver
  const std::lock_guard lock(mutex);
  const Plan& plan = plans.of(on, product);
  if (product.bias != nullptr) {
    set(plan.description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, product.bias);
  }
  const auto run = [&](auto one) {
    const auto beta = static_cast<decltype(one)>(product.accumulate ? 1 : 0);
    require(cublasLtMatmul(on.products, plan.description.get(), &one, product.b.data, plan.a.get(),
                           product.a.data, plan.b.get(), &beta, c.data, plan.c.get(), c.data,
                           plan.c.get(), &plan.algorithm,
                           plan.workspace_bytes > 0 ? on.workspace : nullptr, plan.workspace_bytes,
                           on.stream),
            "multiply");
  };
  c.dtype == DType::F64 ? run(1.0) : run(1.0F);
}

}  // namespace regla::cuda
