#include "core/instructions.h"

#ifdef __x86_64__
#include <cpuid.h>
#endif

namespace regla {
namespace {

// Registers that the system must keep where a set uses them.
constexpr uint64_t kAvx = 0x6, kAvx512 = 0xe6, kApx = uint64_t{1} << 19;

struct Set {
  const char* name;
  uint32_t ProcessorFlags::*flags;
  int bit;
  uint64_t state = 0;
};

using Flags = ProcessorFlags;

/// The sets beyond x86-64 that a compiler uses of its own accord. built_for.cpp has their names.
constexpr Set kSets[] = {
    {"SSE3", &Flags::leaf1_ecx, 0},
    {"SSSE3", &Flags::leaf1_ecx, 9},
    {"SSE4.1", &Flags::leaf1_ecx, 19},
    {"SSE4.2", &Flags::leaf1_ecx, 20},
    {"MOVBE", &Flags::leaf1_ecx, 22},
    {"POPCNT", &Flags::leaf1_ecx, 23},
    {"LAHF", &Flags::extended1_ecx, 0},
    {"LZCNT", &Flags::extended1_ecx, 5},
    {"TBM", &Flags::extended1_ecx, 21},
    {"BMI", &Flags::leaf7_ebx, 3},
    {"BMI2", &Flags::leaf7_ebx, 8},
    {"AVX", &Flags::leaf1_ecx, 28, kAvx},
    {"F16C", &Flags::leaf1_ecx, 29, kAvx},
    {"FMA", &Flags::leaf1_ecx, 12, kAvx},
    {"XOP", &Flags::extended1_ecx, 11, kAvx},
    {"FMA4", &Flags::extended1_ecx, 16, kAvx},
    {"AVX2", &Flags::leaf7_ebx, 5, kAvx},
    {"AVX-VNNI", &Flags::leaf7_1_eax, 4, kAvx},
    {"GFNI", &Flags::leaf7_ecx, 8},
    {"AVX-512F", &Flags::leaf7_ebx, 16, kAvx512},
    {"AVX-512DQ", &Flags::leaf7_ebx, 17, kAvx512},
    {"AVX-512IFMA", &Flags::leaf7_ebx, 21, kAvx512},
    {"AVX-512CD", &Flags::leaf7_ebx, 28, kAvx512},
    {"AVX-512BW", &Flags::leaf7_ebx, 30, kAvx512},
    {"AVX-512VL", &Flags::leaf7_ebx, 31, kAvx512},
    {"AVX-512VBMI", &Flags::leaf7_ecx, 1, kAvx512},
    {"AVX-512VBMI2", &Flags::leaf7_ecx, 6, kAvx512},
    {"AVX-512VNNI", &Flags::leaf7_ecx, 11, kAvx512},
    {"AVX-512BITALG", &Flags::leaf7_ecx, 12, kAvx512},
    {"AVX-512VPOPCNTDQ", &Flags::leaf7_ecx, 14, kAvx512},
    {"AVX-512FP16", &Flags::leaf7_edx, 23, kAvx512},
    {"AVX-512BF16", &Flags::leaf7_1_eax, 5, kAvx512},
    {"APX", &Flags::leaf7_1_edx, 21, kApx},
};
constexpr int kCount = sizeof kSets / sizeof kSets[0];
static_assert(kCount <= 64);

bool same(const char* a, const char* b) {
  while (*a != 0 && *a == *b) ++a, ++b;
  return *a == *b;
}

}  // namespace

ProcessorFlags processor_flags() {
  ProcessorFlags flags;
#ifdef __x86_64__
  uint32_t a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) != 0) flags.leaf1_ecx = c;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0) {
    flags.leaf7_ebx = b;
    flags.leaf7_ecx = c;
    flags.leaf7_edx = d;
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0) {
      flags.leaf7_1_eax = a;
      flags.leaf7_1_edx = d;
    }
  }
  if (__get_cpuid(0x80000001, &a, &b, &c, &d) != 0) flags.extended1_ecx = c;
  constexpr uint32_t kReadable = uint32_t{1} << 27;
  if ((flags.leaf1_ecx & kReadable) != 0) {
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    flags.saved_state = (uint64_t{d} << 32) | a;
  }
#endif
  return flags;
}

uint64_t available_instructions(const ProcessorFlags& flags) {
  uint64_t sets = 0;
  for (int i = 0; i < kCount; ++i) {
    const bool has = (flags.*kSets[i].flags >> kSets[i].bit & 1) != 0;
    const bool kept = (flags.saved_state & kSets[i].state) == kSets[i].state;
    if (has && kept) sets |= uint64_t{1} << i;
  }
  return sets;
}

uint64_t instructions_named(const char* const* names) {
  uint64_t sets = 0;
  for (; *names != nullptr; ++names) {
    for (int i = 0; i < kCount; ++i) {
      if (same(kSets[i].name, *names)) sets |= uint64_t{1} << i;
    }
  }
  return sets;
}

void name_instructions(uint64_t sets, char* text, size_t size) {
  size_t length = 0;
  const auto append = [&](const char* part) {
    while (*part != 0 && length + 1 < size) text[length++] = *part++;
  };
  for (int i = 0; i < kCount; ++i) {
    if ((sets >> i & 1) == 0) continue;
    if (length > 0) append(", ");
    append(kSets[i].name);
  }
  if (size > 0) text[length] = 0;
}

}  // namespace regla
