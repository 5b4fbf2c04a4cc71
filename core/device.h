#pragma once

#include <compare>
#include <cstdint>
#include <string>

namespace regla {

/// Where a tensor lives: the CPU, or a GPU by its number. Walled is a device of tests: the CPU's
/// kernels behind a wall that nothing but kernels and Memory may pass.
struct Device {
  enum class Kind : uint8_t { Cpu, Cuda, Walled };
  Kind kind = Kind::Cpu;
  int32_t index = 0;

  /// The device called "cpu", "cuda" or "cuda:<index>"; an Error for any other name.
  static Device named(const std::string& text);

  bool is_cpu() const { return kind == Kind::Cpu; }
  auto operator<=>(const Device&) const = default;

  std::string text() const;
};

}  // namespace regla
