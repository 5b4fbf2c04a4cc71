#include <vector>

#include "backends/cuda/clock.h"

namespace regla::cuda {
namespace {

/// Notes are events of the stream. One that is noted while a routine is captured is a part of it.
class EventClock : public Clock {
 public:
  explicit EventClock(const Context& context) : on_(context) {}
  ~EventClock() override {
    for (const cudaEvent_t event : events_) cudaEventDestroy(event);
  }
  EventClock(const EventClock&) = delete;
  EventClock& operator=(const EventClock&) = delete;

  int64_t note() override {
    require(cudaSetDevice(on_.device.index), "select the GPU");
    cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    require(cudaStreamIsCapturing(on_.stream, &capture), "note a time");
    const bool is_captured = capture == cudaStreamCaptureStatusActive;
    cudaEvent_t event = nullptr;
    require(cudaEventCreate(&event), "note a time");
    events_.push_back(event);
    require(cudaEventRecordWithFlags(
                event, on_.stream, is_captured ? cudaEventRecordExternal : cudaEventRecordDefault),
            "note a time");
    return static_cast<int64_t>(events_.size()) - 1;
  }

  double seconds(int64_t from, int64_t to) override {
    const cudaEvent_t first = events_.at(static_cast<size_t>(from)),
                      last = events_.at(static_cast<size_t>(to));
    require(cudaEventSynchronize(last), "wait for a time");
    float milliseconds = 0;
    require(cudaEventElapsedTime(&milliseconds, first, last), "compare times");
    return 1e-3 * static_cast<double>(milliseconds);
  }

 private:
  const Context& on_;
  std::vector<cudaEvent_t> events_;
};

}  // namespace

std::unique_ptr<Clock> make_clock(const Context& context) {
  return std::make_unique<EventClock>(context);
}

}  // namespace regla::cuda
