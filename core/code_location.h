#pragma once

namespace regla {

/// A place in the code: as a default argument, where the function is called. (clang 14 has no
/// std::source_location.)
struct CodeLocation {
  const char* file;
  int line;

  static constexpr CodeLocation current(const char* file = __builtin_FILE(),
                                        int line = __builtin_LINE()) {
    return {file, line};
  }
};

}  // namespace regla
