#pragma once

#include <functional>
#include <string>

#include "core/code_location.h"
#include "core/device.h"

namespace regla {

/// Open while a kernel runs: only then may host code ask for the address of a tensor that is not on
/// the CPU. Scopes nest.
class KernelScope {
 public:
  explicit KernelScope(Device device);
  ~KernelScope();
  KernelScope(const KernelScope&) = delete;
  KernelScope& operator=(const KernelScope&) = delete;

  static bool is_open();

 private:
  Device device_;
};

/// A place in the code that asked for the address of a tensor that lies on another device.
using StrayRead = std::function<void(const std::string& what, CodeLocation where)>;

/// Tells `listener` of such reads while it lives, instead of throwing an Error: for tests, which
/// list them all in one run.
class StrayReads {
 public:
  explicit StrayReads(StrayRead listener);
  ~StrayReads();
  StrayReads(const StrayReads&) = delete;
  StrayReads& operator=(const StrayReads&) = delete;

 private:
  StrayRead outer_;
};

/// An Error, or a call of the listener, that names the tensor (`what`) and the place.
void report_stray_read(const std::string& what, CodeLocation where);

}  // namespace regla
