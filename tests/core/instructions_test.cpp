#include "core/instructions.h"

#include <string>

#include "tests/catch.h"

namespace regla::test {
namespace {

std::string names(uint64_t sets) {
  char text[1000];
  name_instructions(sets, text, sizeof text);
  return text;
}

constexpr uint64_t kSystemKeepsAvx = 0x7, kSystemKeepsAvx512 = 0xe7;

/// What processors answer to CPUID, from their manuals.
const ProcessorFlags kNehalem = {.leaf1_ecx = 0x009ce3bd, .extended1_ecx = 0x1, .saved_state = 0};
const ProcessorFlags kHaswell = {.leaf1_ecx = 0x7ffafbff,
                                 .leaf7_ebx = 0x000037ab,
                                 .extended1_ecx = 0x21,
                                 .saved_state = kSystemKeepsAvx};
const ProcessorFlags kSkylakeServer = {.leaf1_ecx = 0x7ffefbff,
                                       .leaf7_ebx = 0xd39ffffb,
                                       .extended1_ecx = 0x121,
                                       .saved_state = kSystemKeepsAvx512};

}  // namespace

TEST_CASE("instruction sets follow from what the processor says") {
  CHECK(available_instructions({}) == 0);
  CHECK(names(available_instructions(kNehalem)) == "SSE3, SSSE3, SSE4.1, SSE4.2, POPCNT, LAHF");
  CHECK(names(available_instructions(kHaswell)) ==
        "SSE3, SSSE3, SSE4.1, SSE4.2, MOVBE, POPCNT, LAHF, LZCNT, BMI, BMI2, AVX, F16C, FMA, AVX2");
  CHECK(names(available_instructions(kSkylakeServer) & ~available_instructions(kHaswell)) ==
        "AVX-512F, AVX-512DQ, AVX-512CD, AVX-512BW, AVX-512VL");
}

TEST_CASE("vectors are no use where the system does not keep their registers") {
  ProcessorFlags flags = kSkylakeServer;
  flags.saved_state = kSystemKeepsAvx;
  CHECK(available_instructions(flags) == available_instructions(kHaswell));
  flags.saved_state = 0x3;  // SSE alone
  CHECK(names(available_instructions(flags)) ==
        "SSE3, SSSE3, SSE4.1, SSE4.2, MOVBE, POPCNT, LAHF, LZCNT, BMI, BMI2");
}

TEST_CASE("what a build needs and a processor lacks is named") {
  const char* const build[] = {"AVX2", "FMA", "AVX-512F", "SSE3", nullptr};
  const uint64_t needed = instructions_named(build);
  CHECK(names(needed) == "SSE3, FMA, AVX2, AVX-512F");
  CHECK(names(needed & ~available_instructions(kHaswell)) == "AVX-512F");
  CHECK(names(needed & ~available_instructions(kNehalem)) == "FMA, AVX2, AVX-512F");
  CHECK((needed & ~available_instructions(kSkylakeServer)) == 0);
  const char* const unknown[] = {"AVX-1024", "", "AVX", nullptr};
  CHECK(names(instructions_named(unknown)) == "AVX");
}

TEST_CASE("this build knows what it was compiled for, and this processor has it") {
  std::string list;
  for (const char* const* name = kBuiltFor; *name != nullptr; ++name) {
    CAPTURE(*name);
    const char* const one[] = {*name, nullptr};
    CHECK(names(instructions_named(one)) == *name);
    list += std::string(" ") + *name + " ";
  }
  const uint64_t needed = instructions_named(kBuiltFor);
  CHECK(names(needed & ~available_instructions(processor_flags())).empty());
#ifdef __AVX2__
  CHECK(list.find(" AVX2 ") != list.npos);
#else
  CHECK(list.find(" AVX2 ") == list.npos);
#endif
#ifdef __AVX512VL__
  CHECK(list.find(" AVX-512VL ") != list.npos);
#else
  CHECK(list.find(" AVX-512VL ") == list.npos);
#endif
}

TEST_CASE("names that do not fit are cut off") {
  const char* const build[] = {"SSE3", "AVX", nullptr};
  char text[7] = "......";
  name_instructions(instructions_named(build), text, sizeof text);
  CHECK(std::string(text) == "SSE3, ");
  name_instructions(instructions_named(build), text, 1);
  CHECK(std::string(text).empty());
}

}  // namespace regla::test
