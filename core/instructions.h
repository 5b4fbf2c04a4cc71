#pragma once

#include <cstddef>
#include <cstdint>

// Which instructions of x86 a build needs and a processor has. The functions are compiled for the
// base architecture and use no inline function of anyone else, of which the linker might keep a
// copy that needs more: they run before the program knows where it is.
namespace regla {

/// What the CPUID instruction and the system say; 0 on other architectures.
struct ProcessorFlags {
  uint32_t leaf1_ecx = 0;
  uint32_t leaf7_ebx = 0, leaf7_ecx = 0, leaf7_edx = 0;
  uint32_t leaf7_1_eax = 0, leaf7_1_edx = 0;
  uint32_t extended1_ecx = 0;
  uint64_t saved_state = 0;  ///< XCR0: the registers that the system keeps for each process
};

/// The flags of the processor that this runs on.
ProcessorFlags processor_flags();

/// The instruction sets that may be used with these flags, a bit for each.
uint64_t available_instructions(const ProcessorFlags& flags);

/// The names of the sets that this build was compiled for, `-march=native` included; the last is
/// null.
extern const char* const kBuiltFor[];

/// The bits of sets given by their names, of which the last is null; unknown ones have none.
uint64_t instructions_named(const char* const* names);

/// Writes the names of the sets, "AVX2, FMA", and a 0 into `text`, cut off where it is too short.
void name_instructions(uint64_t sets, char* text, size_t size);

}  // namespace regla
