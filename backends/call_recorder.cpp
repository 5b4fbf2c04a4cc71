#include "backends/call_recorder.h"

namespace regla {
namespace {

thread_local CallRecorder* collecting = nullptr;

}  // namespace

CallRecorder::CallRecorder() {
  check(collecting == nullptr, "[routine] two records at once");
  collecting = this;
}

CallRecorder::~CallRecorder() { collecting = nullptr; }

CallRecorder* CallRecorder::current() { return KernelScope::is_open() ? nullptr : collecting; }

}  // namespace regla
