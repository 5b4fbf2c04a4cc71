#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>

#include "core/check.h"

namespace regla {

/// A string as a template argument.
template <size_t N>
struct FixedString {
  char text[N];
  constexpr FixedString(const char (&literal)[N]) { std::copy_n(literal, N, text); }  // NOLINT
};

template <FixedString Name, class Signature>
class Kernel;

/// One entry of a kernel table: a plain function, or nothing. Calling nothing is an Error that
/// names the kernel; no backend ever falls back silently.
template <FixedString Name, class... Arguments>
class Kernel<Name, void(Arguments...)> {
 public:
  using Function = void(Arguments...);

  constexpr Kernel() = default;
  constexpr Kernel(Function* function) : function_(function) {}  // NOLINT

  void operator()(Arguments... arguments) const {
    check(function_ != nullptr, "[", Name.text, "] this backend has no such kernel");
    function_(std::forward<Arguments>(arguments)...);
  }

 private:
  Function* function_ = nullptr;
};

}  // namespace regla
