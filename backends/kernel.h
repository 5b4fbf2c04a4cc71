#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>

#include "backends/arguments.h"
#include "backends/call_recorder.h"
#include "core/check.h"
#include "core/kernel_scope.h"

namespace regla {

/// A string as a template argument.
template <size_t N>
struct FixedString {
  char text[N];
  constexpr FixedString(const char (&literal)[N]) { std::copy_n(literal, N, text); }  // NOLINT
};

/// The device that all tensors among the arguments of an op or a kernel lie on; an Error when two
/// differ.
template <class... Arguments>
Device common_device(const char* who, const Arguments&... arguments) {
  const Tensor* first = nullptr;
  const auto visit = [&](const Tensor& tensor) {
    if (!tensor.defined()) return;
    if (first == nullptr) first = &tensor;
    check(tensor.device() == first->device(), "[", who, "] expected all tensors on ",
          first->device().text(), ", got one on ", tensor.device().text());
  };
  (for_each_tensor(arguments, visit), ...);
  return first == nullptr ? Device{} : first->device();
}

/// What a kernel is by its signature; `Named` has the name.
template <class Named, class Signature>
class KernelOf;

template <class Named, class... Arguments>
class KernelOf<Named, void(Arguments...)> {
 public:
  using Function = void(Arguments...);

  constexpr KernelOf() = default;
  constexpr KernelOf(Function* function) : function_(function) {}  // NOLINT

  void operator()(Arguments... arguments) const {
    check(function_ != nullptr, "[", Named::kName, "] this backend has no such kernel");
    const Device device = common_device(Named::kName, arguments...);
    CallRecorder* recorder = device.is_cpu() ? nullptr : CallRecorder::current();
    const KernelScope scope(device);
    if (recorder == nullptr) return function_(std::forward<Arguments>(arguments)...);
    function_(arguments...);
    recorder->add(repeated(Named::kName, device, function_, arguments...));
  }

 private:
  Function* function_ = nullptr;
};

/// One entry of a kernel table: a plain function, or nothing. Calling nothing is an Error that
/// names the kernel; no backend ever falls back silently. While the function runs, and only then,
/// it may ask for the addresses of its tensors.
template <FixedString Name, class Signature>
class Kernel : public KernelOf<Kernel<Name, Signature>, Signature> {
 public:
  static constexpr const char* kName = Name.text;
  using KernelOf<Kernel, Signature>::KernelOf;
};

}  // namespace regla
