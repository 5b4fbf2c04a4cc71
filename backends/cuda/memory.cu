#include <cstring>

#include "backends/cuda/loops.cuh"
#include "backends/cuda/memory.h"
#include "backends/cuda/segments.h"
#include "backends/cuda/staging.h"
#include "core/heap_memory.h"

namespace regla::cuda {
namespace {

template <class T>
void fill_with(const Context& on, void* to, const void* element, size_t count) {
  T value;
  std::memcpy(&value, element, sizeof value);
  auto* out = static_cast<T*>(to);
  for_each(on, static_cast<int64_t>(count), [=] __device__(int64_t i) { out[i] = value; });
}

class DeviceMemory : public HeapMemory {
 public:
  DeviceMemory(const Context& context, SegmentSource& segments)
      : HeapMemory(context.device, segments),
        on_(context),
        marks_(context.stream),
        staging_(context.stream) {
    require(cudaStreamCreateWithFlags(&beside_, cudaStreamNonBlocking), "make a stream");
  }

  void copy(void* to, const void* from, size_t bytes) override {
    move(to, from, bytes, cudaMemcpyDeviceToDevice);
  }
  void copy_from_host(void* to, const void* from, size_t bytes) override {
    count_copy_from_host();
    if (bytes == 0) return;
    if (bytes <= Staging::kLargest) return staging_.copy(to, from, bytes);
    move(to, from, bytes, cudaMemcpyHostToDevice);
    wait();
  }
  void copy_to_host(void* to, const void* from, size_t bytes) override {
    count_copy_to_host();
    move(to, from, bytes, cudaMemcpyDeviceToHost);
    wait();
  }

  void fill(void* to, const void* element, size_t element_bytes, size_t count) override {
    select();
    switch (element_bytes) {
      case 1:
        return fill_with<uint8_t>(on_, to, element, count);
      case 2:
        return fill_with<uint16_t>(on_, to, element, count);
      case 4:
        return fill_with<uint32_t>(on_, to, element, count);
      default:
        return fill_with<uint64_t>(on_, to, element, count);
    }
  }

  void wait() override {
    refuse_in_routine("the host waits");
    require(cudaStreamSynchronize(on_.stream), "wait for the GPU");
  }

  int64_t set_mark() override {
    refuse_in_routine("a mark is set");
    return marks_.set();
  }
  bool has_passed(int64_t mark) override { return marks_.has_passed(mark); }
  void wait_for(int64_t mark) override {
    refuse_in_routine("the host waits");
    marks_.wait_for(mark);
  }
  void copy_to_host_beside(void* to, const void* from, size_t bytes) override {
    count_copy_to_host();
    require(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, beside_), "copy");
    require(cudaStreamSynchronize(beside_), "wait for a copy");
  }

  /// Kernels are launched on the thread's current GPU.
  void enter_kernel() override { select(); }

 private:
  void select() { require(cudaSetDevice(on_.device.index), "select the GPU"); }

  void move(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    if (bytes > 0) require(cudaMemcpyAsync(to, from, bytes, kind, on_.stream), "copy");
  }

  const Context& on_;
  Marks marks_;
  Staging staging_;
  cudaStream_t beside_ = nullptr;  // of the one kind of copy that waits for nothing
};

/// They outlive every tensor.
SegmentSource& segments_of(int index) {
#ifdef REGLA_WATCHED_MEMORY
  return *new WatchedSegments(index);
#else
  size_t free = 0, total = 0;
  require(cudaMemGetInfo(&free, &total), "ask how much memory the GPU has");
  return *new DeviceSegments(index, total);
#endif
}

}  // namespace

std::unique_ptr<Memory> make_memory(const Context& context) {
  return std::make_unique<DeviceMemory>(context, segments_of(context.device.index));
}

}  // namespace regla::cuda
