#include <algorithm>
#include <cstring>

#include "backends/cuda/staging.h"

namespace regla::cuda {

Marks::Marks(cudaStream_t stream) : stream_(stream) {
  for (cudaEvent_t& made : events_) {
    require(cudaEventCreateWithFlags(&made, cudaEventDisableTiming), "make an event");
  }
}

int64_t Marks::set() {
  const int64_t mark = next_;
  if (mark >= kCount) wait_for(mark - kCount);
  require(cudaEventRecord(event(mark), stream_), "set a mark");
  ++next_;
  return mark;
}

bool Marks::has_passed(int64_t mark) const {
  if (mark < next_ - kCount) return true;
  const cudaError_t status = cudaEventQuery(event(mark));
  if (status == cudaErrorNotReady) return false;
  require(status, "look for a mark");
  return true;
}

void Marks::wait_for(int64_t mark) const {
  if (mark >= next_ - kCount) require(cudaEventSynchronize(event(mark)), "wait for the GPU");
}

void Staging::copy(void* to, const void* from, size_t bytes) {
  // The slot whose copy was asked for longest ago; its mark is the next to be set again.
  Slot& slot = slots_[static_cast<size_t>(copies_ % Marks::kCount)];
  if (copies_ >= Marks::kCount) marks_.wait_for(copies_ - Marks::kCount);
  if (slot.bytes < bytes) {
    require(cudaFreeHost(slot.memory), "free memory of the host");
    slot = {};
    require(cudaMallocHost(&slot.memory, bytes), "allocate memory of the host");
    slot.bytes = bytes;
  }
  std::memcpy(slot.memory, from, bytes);
  require(cudaMemcpyAsync(to, slot.memory, bytes, cudaMemcpyHostToDevice, stream_), "copy");
  copies_ = marks_.set() + 1;
}

}  // namespace regla::cuda
