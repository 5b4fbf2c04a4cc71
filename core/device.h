#pragma once

#include <cstdint>
#include <string>

namespace regla {

/// Where a tensor lives: the CPU, or a GPU by its number.
struct Device {
  enum class Kind : uint8_t { Cpu, Cuda };
  Kind kind = Kind::Cpu;
  int32_t index = 0;

  bool is_cpu() const { return kind == Kind::Cpu; }
  bool operator==(const Device&) const = default;

  std::string text() const { return is_cpu() ? "cpu" : "cuda:" + std::to_string(index); }
};

}  // namespace regla
