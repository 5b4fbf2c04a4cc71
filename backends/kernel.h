#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>

#include "backends/arguments.h"
#include "backends/call_recorder.h"
#include "backends/kernel_observer.h"
#include "core/check.h"
#include "core/kernel_scope.h"

namespace regla {

/// A string as a template argument.
template <size_t N>
struct FixedString {
  char text[N];
  constexpr FixedString(const char (&literal)[N]) { std::copy_n(literal, N, text); }  // NOLINT
};

/// The types that the letters of kernels.h stand for in one call. They follow from its tensors.
struct ArgumentTypes {
  DType activations = DType::I32, sums = DType::I32;  // I32: not known

  static char plain(char letter) {  // without what it says about writing
    return letter >= 'a' ? static_cast<char>(letter - 'a' + 'A') : letter;
  }

  void add(char letter, const Tensor& tensor) {
    letter = plain(letter);
    if (!tensor.defined() || letter == 'I' || letter == 'D' || letter == '-') return;
    if (letter == 'A' && activations == DType::I32) activations = tensor.dtype();
    if (sums == DType::I32) sums = sum_type(tensor.dtype());
  }

  bool allow(char letter, DType dtype) const {
    letter = plain(letter);
    if (letter == '-') return true;
    if (letter == 'I') return dtype == DType::I32;
    if (letter == 'D') return dtype == DType::F64;
    if (dtype == DType::I32 || sum_type(dtype) != sums) return false;
    if (letter == 'S') return dtype == sums;
    if (letter == 'W' && dtype == DType::BF16) return true;
    return letter == '*' || activations == DType::I32 || dtype == activations;
  }
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

/// An Error unless every tensor among the arguments has the type that its letter says (kernels.h).
template <class... Arguments>
void require_types(const char* kernel, const char* types, const Arguments&... arguments) {
  ArgumentTypes found;
  for_each_typed(
      types, [&](char letter, const Tensor& tensor) { found.add(letter, tensor); }, arguments...);
  for_each_typed(
      types,
      [&](char letter, const Tensor& tensor) {
        if (!tensor.defined()) return;
        check(found.allow(letter, tensor.dtype()), "[", kernel, "] expected tensors of the types ",
              types, ", got ", name_of(tensor.dtype()), " for ", letter);
      },
      arguments...);
}

/// What a kernel is by its signature; `Named` has the name and the types.
template <class Named, class Signature>
class KernelOf;

template <class Named, class... Arguments>
class KernelOf<Named, void(Arguments...)> {
 public:
  using Function = void(Arguments...);
  /// The tensors among the arguments, those of structs included.
  static constexpr size_t kTensors = (size_t{0} + ... + tensor_count<Arguments>());

  constexpr KernelOf() = default;
  constexpr KernelOf(Function* function) : function_(function) {}  // NOLINT

  void operator()(Arguments... arguments) const {
    check(function_ != nullptr, "[", Named::kName, "] this backend has no such kernel");
    require_types(Named::kName, Named::kTypes, arguments...);
    const Device device = common_device(Named::kName, arguments...);
    CallRecorder* recorder = device.is_cpu() ? nullptr : CallRecorder::current();
    const Observed observed([&] { return call_of(device, arguments...); });
    const KernelScope scope(device);
    if (recorder == nullptr) return function_(std::forward<Arguments>(arguments)...);
    function_(arguments...);
    recorder->add(repeated(Named::kName, device, function_, arguments...));
  }

 private:
  static KernelCall call_of(Device device, const Arguments&... arguments) {
    KernelCall call = {Named::kName, device, {}};
    const auto add = [&](const Tensor& tensor) { call.tensors.push_back(tensor); };
    (for_each_tensor(arguments, add), ...);
    return call;
  }

  Function* function_ = nullptr;
};

/// One entry of a kernel table: a plain function, or nothing. Calling nothing is an Error that
/// names the kernel; no backend ever falls back silently. While the function runs, and only then,
/// it may ask for the addresses of its tensors, whose types are as `Types` says (kernels.h).
template <FixedString Name, FixedString Types, class Signature>
class Kernel : public KernelOf<Kernel<Name, Types, Signature>, Signature> {
 public:
  static constexpr const char* kName = Name.text;
  static constexpr const char* kTypes = Types.text;
  using KernelOf<Kernel, Signature>::KernelOf;
};

}  // namespace regla
