#pragma once

#include <string>

namespace regla::cpu {

/// What the operating system calls this machine's processor; "unknown" where it does not say.
std::string processor_model();
/// The vector instructions that this build was compiled for, as "AVX-512 AVX2 FMA"; "baseline" for
/// none beyond what the architecture guarantees.
std::string instruction_sets();
/// How products of BF16 are computed: "AMX" or "AVX-512 BF16" where this processor has those
/// instructions, else "widened to F32".
const char* bfloat16_products();
/// The architecture that this build was compiled for, as "x86-64".
const char* architecture();

/// The version of oneDNN that runs, as "2.6.3".
const char* onednn_version();
const char* eigen_version();

}  // namespace regla::cpu
