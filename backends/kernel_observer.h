#pragma once

#include <vector>

#include "core/device.h"
#include "core/tensor.h"

namespace regla {

/// A call of a kernel, with the tensors among its arguments, undefined ones too, in the order of
/// its letters (kernels.h).
struct KernelCall {
  const char* kernel;
  Device device;
  std::vector<Tensor> tensors;
};

/// Is told, while it lives, of every kernel that this thread asks for, but for those that kernels
/// themselves ask for. A routine that repeats what it recorded asks for nothing.
class KernelObserver {
 public:
  KernelObserver();
  virtual ~KernelObserver();
  KernelObserver(const KernelObserver&) = delete;
  KernelObserver& operator=(const KernelObserver&) = delete;

  virtual void begins(const KernelCall& call) = 0;
  virtual void ended() = 0;

 private:
  KernelObserver* outer_;
};

/// Around a kernel while it runs: tells this thread's youngest observer, if there is one.
class Observed {
 public:
  template <class MakeCall>
  explicit Observed(MakeCall&& make_call) : observer_(take_observer()) {
    if (observer_ != nullptr) observer_->begins(make_call());
  }
  ~Observed();
  Observed(const Observed&) = delete;
  Observed& operator=(const Observed&) = delete;

 private:
  /// The observer, whom nobody is until the kernel ended.
  static KernelObserver* take_observer();

  KernelObserver* observer_;
};

}  // namespace regla
