#include <sched.h>

#include <fstream>
#include <set>

#include "storage/json_fields.h"
#include "tests/app/support.h"

// How the program starts: before main, and with how many threads.
namespace regla::test {
namespace {

namespace fs = std::filesystem;

/// Runs the program with these words before it: `/usr/bin/env A=b`, a loader.
Outcome started_by(std::vector<std::string> words, const std::vector<std::string>& arguments) {
  words.push_back(REGLA_PROGRAM);
  words.insert(words.end(), arguments.begin(), arguments.end());
  return Process(words).wait();
}

Json devices(std::vector<std::string> environment) {
  environment.insert(environment.begin(), {"/usr/bin/env", "-u", "OMP_WAIT_POLICY"});
  const Outcome outcome = started_by(environment, {"devices", "--json"});
  CAPTURE(environment, outcome.err);
  REQUIRE(outcome.code == 0);
  return parse_json(outcome.out, "devices");
}

/// What libgomp took as its spin count, from what it says at the start.
std::string spin_count(const std::vector<std::string>& environment) {
  std::vector<std::string> words = {"/usr/bin/env"};
  words.insert(words.end(), environment.begin(), environment.end());
  words.push_back("OMP_DISPLAY_ENV=verbose");
  const Outcome outcome = started_by(words, {"--version"});
  REQUIRE(outcome.code == 0);
  const std::string name = "GOMP_SPINCOUNT = '";
  const size_t at = outcome.err.find(name);
  if (at == std::string::npos) return "";  // another run time
  const size_t begin = at + name.size();
  return outcome.err.substr(begin, outcome.err.find('\'', begin) - begin);
}

int processors() {
  cpu_set_t set;
  REQUIRE(::sched_getaffinity(0, sizeof set, &set) == 0);
  return CPU_COUNT(&set);
}

/// The dynamic loader that the program names, or nothing.
std::string loader() {
  for (const char* path : {"/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"}) {
    if (fs::exists(path)) return path;
  }
  return "";
}

std::string in_path(const std::string& program) {
  std::istringstream folders(std::getenv("PATH"));
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (fs::exists(fs::path(folder) / program)) return (fs::path(folder) / program).string();
  }
  return "";
}

/// The processors that each thread of a process may run on, each set once.
std::set<std::string> affinities(pid_t process) {
  std::set<std::string> sets;
  std::error_code gone;
  for (const auto& task :
       fs::directory_iterator("/proc/" + std::to_string(process) + "/task", gone)) {
    std::ifstream status(task.path() / "status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("Cpus_allowed_list:")) sets.insert(line);
    }
  }
  return sets;
}

}  // namespace

TEST_CASE("threads that wait spin for a short time, unless someone says how they should wait") {
  const std::string plain = spin_count({"-u", "OMP_WAIT_POLICY"});
  if (plain.empty()) WARN("skipped: the OpenMP run time is not libgomp");
  CHECK((plain.empty() || plain == "10000"));
  if (plain.empty()) return;
  CHECK(spin_count({"-u", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT=77"}) == "77");
  CHECK(spin_count({"OMP_WAIT_POLICY=passive"}) == "0");
  // With next to nothing in the environment.
  CHECK(spin_count({"-i", "PATH=/bin"}) == "10000");
  CHECK(spin_count({"-i", "HOME=/", "LANG=C"}) == "10000");
}

TEST_CASE("the environment is as it was once the program runs") {
  const Workshop shop;
  // The token cache below HOME shows that it is there again.
  for (const char* name : {"HOME", "XDG_CACHE_HOME"}) {
    const std::string cache = shop / (std::string(name) + "-cache");
    fs::create_directories(cache);
    std::vector<std::string> words = {"/usr/bin/env", "-i", std::string(name) + "=" + cache};
    const Outcome outcome = started_by(words, shop.train(name, {"--steps", "1"}));
    CAPTURE(name, outcome.err);
    CHECK(outcome.code == 0);
    CHECK_FALSE(fs::is_empty(cache));
  }
}

TEST_CASE("all processors are used when OpenMP binds threads to them") {
  const int all = processors();
  CHECK(devices({"-u", "OMP_NUM_THREADS"})["threads"] == all);
  CHECK(devices({"-u", "OMP_NUM_THREADS", "OMP_PROC_BIND=true"})["threads"] == all);
  CHECK(devices({"-u", "OMP_NUM_THREADS", "OMP_PLACES=cores"})["threads"] == all);
  const Json two = devices({"OMP_PROC_BIND=true", "OMP_NUM_THREADS=2"});
  CHECK(two["threads"] == 2);
  CHECK(two["threads_from"] == "OMP_NUM_THREADS");
  CHECK(devices({"OMP_NUM_THREADS=1"})["threads"] == 1);
  CHECK(devices({"-u", "OMP_NUM_THREADS", "/usr/bin/taskset", "1"})["threads"] == 1);
}

TEST_CASE("two bound threads have a processor each") {
  if (processors() < 2) return skip("there is one processor");
  const Workshop shop;
  std::vector<std::string> words = {"/usr/bin/env", "OMP_PROC_BIND=true", "OMP_NUM_THREADS=2",
                                    REGLA_PROGRAM};
  const auto arguments = shop.train("run", {"--steps", "100000"});
  words.insert(words.end(), arguments.begin(), arguments.end());
  Process training(words);
  while (training.so_far().err.find("step 5/") == std::string::npos && training.read(1000)) {
  }
  CAPTURE(training.so_far().err);
  CHECK(affinities(training.id()).size() >= 2);
}

TEST_CASE("the program starts through the dynamic loader") {
  const std::string path = loader();
  const Outcome outcome =
      started_by(path.empty() ? std::vector<std::string>{} : std::vector<std::string>{path},
                 {"devices", "--json"});
  CAPTURE(path, outcome.err);
  CHECK(outcome.code == 0);
  CHECK(parse_json(outcome.out, "devices")["threads"].get<int>() >= 1);
}

#if defined(__x86_64__) && defined(__AVX512F__)
TEST_CASE("a processor that lacks instructions is told of in one line") {
#ifdef __SANITIZE_ADDRESS__
  return skip("the address sanitizer's own memory does not fit into an emulator");
#endif
  const std::string emulator = in_path("qemu-x86_64");
  if (emulator.empty()) return skip("qemu-x86_64 (package qemu-user) is not installed");
  for (const char* processor : {"Nehalem", "max"}) {
    const Outcome outcome = started_by({emulator, "-cpu", processor}, {"--version"});
    CAPTURE(processor, outcome.err);
    CHECK(outcome.code == 1);
    CHECK(outcome.out.empty());
    CHECK(outcome.err.starts_with("regla: error: this build uses instructions"));
    CHECK_THAT(outcome.err, Contains("AVX-512F"));
    CHECK(outcome.err.find('\n') + 1 == outcome.err.size());
  }
}
#endif

}  // namespace regla::test
