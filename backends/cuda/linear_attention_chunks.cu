#include <algorithm>

#include "backends/cuda/context.h"
#include "backends/cuda/linear_attention.cuh"
#include "backends/cuda/linear_attention_chunks.cuh"

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

int attribute(const Context& on, cudaDeviceAttr which) {
  int value = 0;
  require(cudaDeviceGetAttribute(&value, which, on.device.index), "ask for the GPU's limits");
  return value;
}

constexpr int kMostRanks = 8;  // blocks that any cluster may have

unsigned column_blocks(const ChunkedAttention& p) {
  return static_cast<unsigned>((p.V + kColumns - 1) / kColumns);
}

template <int K, bool kKey, bool kValue, bool kAlike, int kTiles>
void launch(const Context& on, int heads, ChunkedAttention p) {
  using Shared = ChunkShared<K, kKey, kTiles>;
  const auto kernel = run_chunks<K, kKey, kValue, kAlike, kTiles>;
  constexpr int kTurnTokens = kTiles * kTileTokens;
  p.turns = static_cast<int>((p.steps + kTurnTokens - 1) / kTurnTokens);
  p.ranks = 1;
  p.buffers = Shared::bytes(2) <=
                      static_cast<size_t>(attribute(on, cudaDevAttrMaxSharedMemoryPerBlockOptin))
                  ? 2
                  : 1;
  require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(Shared::bytes(p.buffers))),
          "reserve shared memory");
  cudaLaunchAttribute cluster = {};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cudaLaunchConfig_t config = {};
  config.blockDim = dim3(kTileThreads);
  config.dynamicSmemBytes = Shared::bytes(p.buffers);
  config.stream = on.stream;
  config.attrs = &cluster;
  const auto set_ranks = [&](int ranks) {
    p.ranks = ranks;
    cluster.val.clusterDim = {static_cast<unsigned>(ranks), 1, 1};
    config.gridDim = dim3(static_cast<unsigned>(heads * ranks), column_blocks(p));
    config.numAttrs = ranks > 1 ? 1 : 0;
  };
  // As many blocks to a head as leave all of them room at once.
  int most = attribute(on, cudaDevAttrClusterLaunch) != 0 ? std::min(kMostRanks, p.turns) : 1;
  for (; most > 1; --most) {
    int clusters = 0;
    set_ranks(most);
    require(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config),
            "ask for room for clusters");
    if (static_cast<int>(column_blocks(p)) * heads <= clusters) break;
  }
  set_ranks(most);
  require(cudaLaunchKernelEx(&config, kernel, p), "launch linear_attention");
}

template <bool kKey, bool kValue, bool kAlike = false>
void launch(const Context& on, int heads, const ChunkedAttention& p) {
  if (p.K <= 32) return launch<32, kKey, kValue, kAlike, 1>(on, heads, p);
  if (p.K > 64) return launch<128, kKey, kValue, kAlike, 1>(on, heads, p);
  if constexpr (!kKey) {
    // Of so few heads that a multiprocessor would have less than two blocks at most, passing the
    // state on is what takes the time: then half as often.
    const int blocks = kMostRanks * static_cast<int>(column_blocks(p)) * heads;
    if (blocks < 2 * on.multiprocessors) return launch<64, kKey, kValue, kAlike, 2>(on, heads, p);
  }
  launch<64, kKey, kValue, kAlike, 1>(on, heads, p);
}

}  // namespace

bool takes_chunks(const LinearAttentionArgs& args) {
  const auto fits = [](int64_t size) { return size % 16 == 0 && size > 0 && size <= 128; };
  return args.q.dtype() == DType::BF16 && fits(args.q.dim(3)) && fits(args.u.dim(3)) &&
         are_aligned<kWidest>(args.q, args.k, args.u, args.log_a, args.log_b);
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
  p.q = narrow(args.q);
  p.k = narrow(args.k);
  p.u = narrow(args.u);
  p.log_a = narrow(args.log_a);
  p.log_b = narrow(args.log_b);
  p.log_s = address<float>(args.log_s);
  p.reset = address<int32_t>(args.reset);
  p.first = address<float>(args.state);
  p.o = address_of_result<Bf16>(result.o);
  p.last = address_of_result<float>(result.state);
  p.kept = args.keep ? address_of_result<Bf16>(result.kept) : nullptr;
  p.steps = steps;
  p.chunks = static_cast<int>(chunks);
  p.H = static_cast<int>(H);
  p.K = static_cast<int>(K);
  p.V = static_cast<int>(V);
  const Context& on = context(result.o);
  const int count = static_cast<int>(heads);
  if (!args.log_a && !args.log_b) return launch<false, true, true>(on, count, p);
  if (!args.log_a) return launch<false, true>(on, count, p);
  if (!args.log_b) return launch<true, false>(on, count, p);
  launch<true, true>(on, count, p);
}

}  // namespace regla::cuda
