#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace regla {

/// The only exception the library throws. Its text is one line that a user can act on.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message) : std::runtime_error(message) {}
};

/// Throws Error with the arguments written one after the other.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw Error(message.str());
}

/// Throws Error unless `condition` holds. The parts are only put together on failure.
///
///     check(x.rank() == 2, "[linear] expected a matrix, got ", x.shape());
template <class... Parts>
void check(bool condition, const Parts&... parts) {
  if (!condition) [[unlikely]]
    fail(parts...);
}

}  // namespace regla
