#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace regla {

/// How much of the processors the control groups of a process leave it.
struct CpuQuota {
  double processors = 0;  ///< 1.5: 150 ms of every 100
  std::string file;       ///< that says so
};

/// The least quota of the groups that this process is in and of those around them (cgroup v2
/// cpu.max, v1 cpu.cfs_quota_us); nothing where there is none. `root` stands in for the root folder
/// in tests.
std::optional<CpuQuota> cpu_quota(const std::filesystem::path& root = "/");

/// A number of threads and where it comes from, for people.
struct ThreadChoice {
  int threads = 1;
  std::string reason;
};

/// OMP_NUM_THREADS where `asked` (its value, or null) is a number above 0, of which libgomp has
/// made `set`; else as many as `processors` that this process may run on, and no more than the
/// quota rounded up.
ThreadChoice choose_threads(const char* asked, int set, int processors,
                            const std::optional<CpuQuota>& quota);

/// That choice for this process.
ThreadChoice default_threads();

}  // namespace regla
