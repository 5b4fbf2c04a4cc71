#pragma once

#include <algorithm>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "backends/arguments.h"
#include "core/check.h"
#include "core/kernel_scope.h"

namespace regla {

/// Collects, while it lives, what this thread asks of devices other than the CPU, as functions that
/// do it again on the same memory without holding it: for a device that cannot record by itself.
/// Kernels are added by KernelOf, copies and fills by the device's Memory.
class CallRecorder {
 public:
  using Call = std::function<void()>;

  CallRecorder();
  ~CallRecorder();
  CallRecorder(const CallRecorder&) = delete;
  CallRecorder& operator=(const CallRecorder&) = delete;

  /// The one that collects; null when there is none or while a kernel runs: what that asks for it
  /// will ask for again.
  static CallRecorder* current();

  void add(Call call) { calls_.push_back(std::move(call)); }
  std::vector<Call> take() { return std::move(calls_); }

 private:
  std::vector<Call> calls_;
};

/// Where the tensors among a kernel's arguments lie, in their order.
template <class Arguments>
std::vector<const void*> places_of(const Arguments& arguments) {
  std::vector<const void*> places;
  const auto visit = [&](const Tensor& tensor) { places.push_back(tensor.raw()); };
  std::apply([&](const auto&... argument) { (for_each_tensor(argument, visit), ...); }, arguments);
  return places;
}

/// A function that calls the kernel again on what the arguments are now. An Error then if it puts a
/// result elsewhere, where the calls behind it would not find it.
template <class... Arguments>
CallRecorder::Call repeated(const char* kernel, Device device, void (*function)(Arguments...),
                            const std::decay_t<Arguments>&... arguments) {
  std::tuple<std::decay_t<Arguments>...> given(arguments...);
  const auto let_go = [](Tensor& tensor) { tensor = tensor.unowned(); };
  std::apply([&](auto&... argument) { (for_each_tensor(argument, let_go), ...); }, given);
  return [=] {
    const KernelScope scope(device);
    auto used = given;
    std::apply([&](auto&... argument) { function(argument...); }, used);
    check(places_of(used) == places_of(given), "[", kernel,
          "] put a result elsewhere when it was repeated");
  };
}

}  // namespace regla
