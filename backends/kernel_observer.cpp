#include "backends/kernel_observer.h"

#include <utility>

namespace regla {
namespace {

thread_local KernelObserver* observing = nullptr;

}  // namespace

KernelObserver::KernelObserver() : outer_(std::exchange(observing, this)) {}
KernelObserver::~KernelObserver() { observing = outer_; }

KernelObserver* Observed::take_observer() { return std::exchange(observing, nullptr); }

Observed::~Observed() {
  if (observer_ == nullptr) return;
  observer_->ended();
  observing = observer_;
}

}  // namespace regla
