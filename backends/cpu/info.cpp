#include "backends/cpu/info.h"

#include <fstream>
#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

namespace regla::cpu {
namespace {

/// The value of the first line `key : value` of /proc/cpuinfo, or nothing.
[[maybe_unused]] std::string cpuinfo(const std::string& key) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (!line.starts_with(key) || colon == std::string::npos) continue;
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    if (begin != std::string::npos) return line.substr(begin);
  }
  return "";
}

}  // namespace

std::string processor_model() {
#ifdef __APPLE__
  char text[256];
  size_t size = sizeof text;
  if (::sysctlbyname("machdep.cpu.brand_string", text, &size, nullptr, 0) == 0) return text;
#else
  for (const char* key : {"model name", "cpu", "Model", "uarch", "CPU part"}) {
    if (std::string text = cpuinfo(key); !text.empty()) return text;
  }
#endif
  return "unknown";
}

std::string instruction_sets() {
  std::string sets;
  [[maybe_unused]] const auto add = [&](const char* name) {
    sets += (sets.empty() ? "" : " ") + std::string(name);
  };
#ifdef __AVX512F__
  add("AVX-512");
#endif
#ifdef __AVX2__
  add("AVX2");
#endif
#ifdef __FMA__
  add("FMA");
#endif
#ifdef __ARM_FEATURE_SVE
  add("SVE");
#endif
#ifdef __ARM_NEON
  add("NEON");
#endif
#ifdef __VSX__
  add("VSX");
#endif
#ifdef __riscv_vector
  add("RVV");
#endif
  return sets.empty() ? "baseline" : sets;
}

const char* architecture() {
#if defined(__x86_64__)
  return "x86-64";
#elif defined(__aarch64__)
  return "arm64";
#elif defined(__powerpc64__)
  return "ppc64";
#elif defined(__riscv)
  return "riscv";
#else
  return "other";
#endif
}

}  // namespace regla::cpu
