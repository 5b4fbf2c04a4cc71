#include "backends/routine.h"

#include <atomic>
#include <utility>

#include "core/check.h"
#include "core/memory.h"

namespace regla {
namespace {

int64_t next_number() {
  static std::atomic<int64_t> routines = 0;
  return routines++;
}

thread_local bool is_running = false;

/// True while it lives.
class Flag {
 public:
  explicit Flag(bool& flag) : flag_(flag) { flag_ = true; }
  ~Flag() { flag_ = false; }
  Flag(const Flag&) = delete;
  Flag& operator=(const Flag&) = delete;

 private:
  bool& flag_;
};

/// Blocks come from the routine's own heap while it lives.
class OwnMemory {
 public:
  OwnMemory(Device device, int64_t routine) : memory_(memory(device)) {
    memory_.enter_routine(routine);
  }
  ~OwnMemory() { memory_.leave_routine(); }
  OwnMemory(const OwnMemory&) = delete;
  OwnMemory& operator=(const OwnMemory&) = delete;

 private:
  Memory& memory_;
};

}  // namespace

Routine::Routine(Device device, std::function<void()> work)
    : device_(device),
      work_(std::move(work)),
      number_(next_number()),
      replay_(make_replay(device)) {}

Routine::~Routine() {
  replay_.reset();
  if (!device_.is_cpu()) memory(device_).end_routine(number_);
}

void Routine::run() {
  check(!is_running, "[routine] a routine cannot run inside of another");
  const Flag running(is_running);
  replay_->run([this] { call(); });
}

void Routine::call() const {
  if (device_.is_cpu()) return work_();  // which writes wherever it is told to
  const OwnMemory own(device_, number_);
  work_();
}

}  // namespace regla
