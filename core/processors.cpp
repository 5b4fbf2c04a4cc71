#include "core/processors.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <vector>

#include "core/parallel.h"  // omp.h

namespace regla {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, at);) parts.push_back(part);
  return parts;
}

bool lists_cpu(const std::string& controllers) {
  const auto names = split(controllers, ',');
  return std::find(names.begin(), names.end(), "cpu") != names.end();
}

/// A path of mountinfo, where blanks and the like are three octal digits after a backslash.
std::string unescaped(const std::string& text) {
  std::string path;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      path += static_cast<char>(std::strtol(text.substr(i + 1, 3).c_str(), nullptr, 8));
      i += 3;
    } else {
      path += text[i];
    }
  }
  return path;
}

/// A hierarchy of control groups that can limit processors, as far as it is mounted here.
struct Hierarchy {
  bool unified = false;  // cgroup v2
  fs::path group;        // the group that is mounted
  fs::path folder;       // where
};

/// From lines `36 35 98:0 /group /folder rw,noatime master:1 - cgroup2 cgroup rw,nsdelegate`.
std::vector<Hierarchy> hierarchies(const fs::path& root) {
  std::vector<Hierarchy> found;
  std::ifstream file(root / "proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    const auto mount = split(line.substr(0, dash), ' '), kind = split(line.substr(dash + 3), ' ');
    if (mount.size() < 5 || kind.size() < 3) continue;
    const bool unified = kind[0] == "cgroup2";
    if (!unified && (kind[0] != "cgroup" || !lists_cpu(kind[2]))) continue;
    found.push_back({unified, unescaped(mount[3]), unescaped(mount[4])});
  }
  return found;
}

/// The group of this process in such a hierarchy: from lines `4:cpu,cpuacct:/a/b`, `0::/a/b`.
std::optional<fs::path> group_in(const Hierarchy& hierarchy, const fs::path& root) {
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (hierarchy.unified ? controllers.empty() : lists_cpu(controllers)) {
      return line.substr(second + 1);
    }
  }
  return std::nullopt;
}

/// Quota over period of one group; nothing where it has none.
std::optional<CpuQuota> quota_of(const fs::path& folder, bool unified) {
  const fs::path path = folder / (unified ? "cpu.max" : "cpu.cfs_quota_us");
  std::ifstream file(path), second(folder / "cpu.cfs_period_us");
  double quota = 0, period = 0;
  // "max" is no number, and -1 stands for no quota.
  const bool read =
      unified ? static_cast<bool>(file >> quota >> period) : file >> quota && second >> period;
  if (!read || quota <= 0 || period <= 0) return std::nullopt;
  return CpuQuota{quota / period, path.string()};
}

/// Whether libgomp takes a value of OMP_NUM_THREADS: a number above 0, or a list of them.
bool is_valid(const char* asked) {
  if (asked == nullptr) return false;
  char* end = nullptr;
  const long first = std::strtol(asked, &end, 10);
  return first > 0 && (*end == 0 || std::strchr(", \t", *end) != nullptr);
}

}  // namespace

std::optional<CpuQuota> cpu_quota(const fs::path& root) {
  std::optional<CpuQuota> least;
  for (const Hierarchy& hierarchy : hierarchies(root)) {
    const std::optional<fs::path> group = group_in(hierarchy, root);
    if (!group) continue;
    // Without a namespace of its own a container sees the path of its group outside, of which only
    // the lower part is mounted; what lies elsewhere can only be seen from the mounted group down.
    fs::path below = group->lexically_relative(hierarchy.group);
    if (below.empty() || *below.begin() == "..") below = ".";
    fs::path folder = root / hierarchy.folder.relative_path();
    const auto look = [&] {
      const auto quota = quota_of(folder, hierarchy.unified);
      if (quota && (!least || quota->processors < least->processors)) least = quota;
    };
    look();
    for (const fs::path& part : below) {
      if (part == ".") continue;
      folder /= part;
      look();
    }
  }
  return least;
}

ThreadChoice choose_threads(const char* asked, int set, int processors,
                            const std::optional<CpuQuota>& quota) {
  if (is_valid(asked)) return {set, "OMP_NUM_THREADS"};
  const std::string allowed =
      processors == 1 ? "one processor" : std::to_string(processors) + " processors";
  if (quota && std::ceil(quota->processors) < processors) {
    std::ostringstream reason;
    reason << "quota of " << quota->processors << " processors in " << quota->file;
    return {std::max(1, static_cast<int>(std::ceil(quota->processors))), reason.str()};
  }
  return {processors, allowed + " that this process may run on"};
}

ThreadChoice default_threads() {
  // Not std::thread::hardware_concurrency: it may have been bound to one of them (OMP_PROC_BIND).
  ThreadChoice choice = choose_threads(std::getenv("OMP_NUM_THREADS"), omp_get_max_threads(),
                                       omp_get_num_procs(), cpu_quota());
  if (const int limit = omp_get_thread_limit(); limit < choice.threads) {
    choice = {limit, "OMP_THREAD_LIMIT"};
  }
  return choice;
}

}  // namespace regla
