#include "backends/cuda/linear_attention_chunks.cuh"

#include "backends/cuda/context.h"
#include "backends/cuda/linear_attention.cuh"

namespace regla::cuda {
namespace {

template <class T>
const T* address(const Tensor& x) {
  return static_cast<const T*>(x.raw());
}

template <class T>
T* address_of_result(Tensor& x) {
  return static_cast<T*>(x.raw());
}

size_t attribute(const Context& on, cudaDeviceAttr which) {
  int value = 0;
  require(cudaDeviceGetAttribute(&value, which, on.device.index), "ask for the GPU's limits");
  return static_cast<size_t>(value);
}

template <int K, bool kKey, bool kValue>
cudaLaunchConfig_t configuration(const Context& on, int64_t heads, const ChunkedAttention& p,
                                 cudaLaunchAttribute& cluster) {
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(p.ranks), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(heads * p.ranks),
                        static_cast<unsigned>((p.V + kColumns - 1) / kColumns));
  config.blockDim = dim3(kTileThreads);
  config.dynamicSmemBytes = ChunkShared<K, kKey>::bytes(p.buffers);
  config.stream = on.stream;
  config.attrs = &cluster;
  config.numAttrs = p.ranks > 1 ? 1 : 0;
  return config;
}

template <int K, bool kKey, bool kValue>
void launch(const Context& on, int64_t heads, ChunkedAttention p) {
  const auto kernel = run_chunks<K, kKey, kValue>;
  const size_t most = attribute(on, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  p.buffers = ChunkShared<K, kKey>::bytes(2) <= most ? 2 : 1;
  require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(ChunkShared<K, kKey>::bytes(p.buffers))),
          "reserve shared memory");
  cudaLaunchAttribute cluster = {};
  p.ranks = 1;
  cudaLaunchConfig_t config = configuration<K, kKey, kValue>(on, heads, p, cluster);
  // As many blocks to a head as leave all of them room at once, up to the 8 of any cluster.
  const bool has_clusters = attribute(on, cudaDevAttrClusterLaunch) != 0;
  for (int ranks = 2; has_clusters && ranks <= 8 && ranks <= p.tiles; ++ranks) {
    ChunkedAttention wider = p;
    wider.ranks = ranks;
    int clusters = 0;
    config = configuration<K, kKey, kValue>(on, heads, wider, cluster);
    require(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config), "ask for room for clusters");
    if (heads * config.gridDim.y > clusters) break;
    p.ranks = ranks;
  }
  config = configuration<K, kKey, kValue>(on, heads, p, cluster);
  require(cudaLaunchKernelEx(&config, kernel, p), "launch linear_attention");
}

template <bool kKey, bool kValue>
void launch(const Context& on, int64_t heads, const ChunkedAttention& p) {
  if (p.K <= 32) return launch<32, kKey, kValue>(on, heads, p);
  if (p.K <= 64) return launch<64, kKey, kValue>(on, heads, p);
  launch<128, kKey, kValue>(on, heads, p);
}

}  // namespace

bool takes_chunks(const LinearAttentionArgs& args) {
  const auto fits = [](int64_t size) { return size % 16 == 0 && size > 0 && size <= 128; };
  const auto is_aligned = [](const Tensor& x) {
    return !x.defined() || reinterpret_cast<uintptr_t>(x.raw()) % 16 == 0;
  };
  return args.q.dtype() == DType::BF16 && fits(args.q.dim(3)) && fits(args.u.dim(3)) &&
         is_aligned(args.q) && is_aligned(args.k) && is_aligned(args.u) && is_aligned(args.log_a) &&
         is_aligned(args.log_b);
}

void linear_attention_chunks(const LinearAttentionArgs& args, RecurrenceResult& result) {
  const int64_t B = args.q.dim(0), steps = args.q.dim(1), H = args.q.dim(2), heads = B * H;
  const int64_t K = args.q.dim(3), V = args.u.dim(3);
  const int64_t chunks = (steps + kChunkTokens - 1) / kChunkTokens;
  if (args.keep && !result.kept.defined()) {
    result.kept = Tensor::empty({heads, chunks, K, V}, DType::BF16, args.q.device());
  }
  if (heads == 0) return;
  ChunkedAttention p = {};
  p.q = address<Bf16>(args.q);
  p.k = address<Bf16>(args.k);
  p.u = address<Bf16>(args.u);
  p.log_a = address<Bf16>(args.log_a);
  p.log_b = address<Bf16>(args.log_b);
  p.log_s = address<float>(args.log_s);
  p.reset = address<int32_t>(args.reset);
  p.first = address<float>(args.state);
  p.o = address_of_result<Bf16>(result.o);
  p.last = address_of_result<float>(result.state);
  p.kept = args.keep ? address_of_result<Bf16>(result.kept) : nullptr;
  p.steps = steps;
  p.tiles = static_cast<int>((steps + kTileTokens - 1) / kTileTokens);
  p.chunks = static_cast<int>(chunks);
  p.H = static_cast<int>(H);
  p.K = static_cast<int>(K);
  p.V = static_cast<int>(V);
  const Context& on = context(result.o);
  if (!args.log_a) return launch<false, true>(on, heads, p);
  if (!args.log_b) return launch<true, false>(on, heads, p);
  launch<true, true>(on, heads, p);
}

}  // namespace regla::cuda
