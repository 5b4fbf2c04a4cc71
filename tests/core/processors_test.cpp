#include "core/processors.h"

#include "core/parallel.h"
#include "storage/files.h"
#include "tests/matchers.h"
#include "tests/temporary_folder.h"

namespace regla::test {
namespace {

namespace fs = std::filesystem;

/// A system with these control groups, of which nothing else is there.
class System {
 public:
  System(const std::string& mounts, const std::string& groups) {
    write("proc/self/mountinfo", mounts);
    write("proc/self/cgroup", groups);
  }
  void write(const std::string& path, const std::string& text) {
    fs::create_directories((folder_ / path).parent_path());
    write_file(folder_ / path, text);
  }
  double quota() const {
    const auto found = cpu_quota(folder_.path());
    return found ? found->processors : 0;
  }
  std::string file() const { return cpu_quota(folder_.path()).value().file; }

 private:
  TemporaryFolder folder_;
};

const char* const kUnified =
    "22 1 0:20 / / rw - ext4 /dev/sda rw\n"
    "25 22 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

}  // namespace

TEST_CASE("the least quota from the mounted group down to the process's own counts") {
  System system(kUnified, "0::/a/b\n");
  CHECK(system.quota() == 0);
  system.write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  CHECK(system.quota() == 0);
  system.write("sys/fs/cgroup/a/cpu.max", "150000 100000\n");
  CHECK(system.quota() == 1.5);
  CHECK_THAT(system.file(), Contains("/sys/fs/cgroup/a/cpu.max"));
  system.write("sys/fs/cgroup/a/b/cpu.max", "400000 50000\n");
  CHECK(system.quota() == 1.5);
  system.write("sys/fs/cgroup/cpu.max", "20000 40000\n");  // the root of a container
  CHECK(system.quota() == 0.5);
  system.write("sys/fs/cgroup/other/cpu.max", "1000 100000\n");
  CHECK(system.quota() == 0.5);
}

TEST_CASE("quotas of cgroup v1 count as those of v2") {
  System system(
      "30 22 0:40 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
      "31 22 0:41 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n",
      "5:cpuset:/x\n4:cpu,cpuacct:/jobs/7\n1:name=systemd:/y\n");
  system.write("sys/fs/cgroup/cpu,cpuacct/jobs/7/cpu.cfs_quota_us", "-1\n");
  system.write("sys/fs/cgroup/cpu,cpuacct/jobs/7/cpu.cfs_period_us", "100000\n");
  CHECK(system.quota() == 0);
  system.write("sys/fs/cgroup/cpu,cpuacct/jobs/cpu.cfs_quota_us", "250000\n");
  CHECK(system.quota() == 0);  // without a period
  system.write("sys/fs/cgroup/cpu,cpuacct/jobs/cpu.cfs_period_us", "100000\n");
  CHECK(system.quota() == 2.5);
  system.write("sys/fs/cgroup/cpuset/x/cpu.cfs_quota_us", "1\n");
  CHECK(system.quota() == 2.5);
}

TEST_CASE("a container sees its own part of the groups") {
  // The path outside, of which only the lower part is mounted, at a place with a blank.
  System inside("25 22 0:30 /docker/12 /sys/fs/my\\040groups rw - cgroup2 cgroup2 rw\n",
                "0::/docker/12/job\n");
  inside.write("sys/fs/my groups/cpu.max", "300000 100000\n");
  CHECK(inside.quota() == 3);
  inside.write("sys/fs/my groups/job/cpu.max", "200000 100000\n");
  CHECK(inside.quota() == 2);
  // Moved outside of what its namespace shows.
  System elsewhere(kUnified, "0::/../other\n");
  elsewhere.write("sys/fs/cgroup/cpu.max", "200000 100000\n");
  elsewhere.write("sys/fs/other/cpu.max", "100000 100000\n");
  CHECK(elsewhere.quota() == 2);
}

TEST_CASE("what is no description of groups has no quota") {
  System system(
      "nonsense\n1 2 3 - cgroup2\n - cgroup2 cgroup rw\n25 22 0:30 / /c rw - cgroup2 x y\n",
      "nonsense\n0\n0:\n0::/\n");
  CHECK(system.quota() == 0);
  for (const char* text : {"", "max", "100000", "x 100000", "100000 0", "0 100000", "-5 100"}) {
    system.write("c/cpu.max", text);
    CAPTURE(text);
    CHECK(system.quota() == 0);
  }
  system.write("c/cpu.max", "100000 100000");
  CHECK(system.quota() == 1);
  CHECK_FALSE(cpu_quota("/nowhere/at/all").has_value());
}

TEST_CASE("threads are as many as processors and quota allow, unless someone says how many") {
  const CpuQuota half{0.5, "cpu.max"}, most{2.5, "cpu.max"}, many{64, "cpu.max"};
  CHECK(choose_threads(nullptr, 8, 8, {}).threads == 8);
  CHECK_THAT(choose_threads(nullptr, 8, 8, {}).reason, Contains("8 processors"));
  CHECK(choose_threads(nullptr, 8, 8, half).threads == 1);
  CHECK(choose_threads(nullptr, 8, 8, most).threads == 3);
  CHECK_THAT(choose_threads(nullptr, 8, 8, most).reason, Contains("2.5 processors in cpu.max"));
  CHECK(choose_threads(nullptr, 8, 8, many).threads == 8);
  CHECK(choose_threads(nullptr, 1, 1, most).threads == 1);
  CHECK(choose_threads("5", 5, 8, half).threads == 5);
  CHECK(choose_threads("5, 2", 5, 8, half).reason == "OMP_NUM_THREADS");
  for (const char* nonsense : {"", "0", "-3", "many", "4x"}) {
    CAPTURE(nonsense);
    CHECK(choose_threads(nonsense, 8, 8, most).threads == 3);
  }
}

TEST_CASE("this process has threads to choose from") {
  const ThreadChoice choice = default_threads();
  CHECK(choice.threads >= 1);
  CHECK(choice.threads <= std::max(omp_get_num_procs(), omp_get_max_threads()));
  CHECK_FALSE(choice.reason.empty());
}

}  // namespace regla::test
