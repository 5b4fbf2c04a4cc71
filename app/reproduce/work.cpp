#include "app/reproduce/work.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <set>
#include <thread>

#include "app/program.h"
#include "backends/backend.h"
#include "backends/cpu/info.h"
#include "core/processors.h"
#include "storage/files.h"
#include "training/trainer.h"

namespace regla::app {
namespace {

namespace fs = std::filesystem;

constexpr auto kBetweenLooks = std::chrono::milliseconds(200);

/// The lock of a piece of work, if nobody has it. It ends with the process, however that ends.
std::optional<Descriptor> lock_of(const Setting& setting, const std::string& name) {
  const fs::path path = setting.folder / "locks" / name;
  Descriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666));
  check(static_cast<bool>(file), "[reproduce] cannot open ", path.string());
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return std::nullopt;
  return file;
}

Words without_device(Words words) {
  const auto device = std::ranges::find(words, "--device");
  if (device != words.end()) words.erase(device, device + 2);
  return words;
}

void run_words(const Words& words) {
  const int code = run_command(words);
  if (code == kInterrupted) throw Interrupted{};
  check(code == 0, "[reproduce] ", command_text(words), " failed");
}

/// Runs a command and returns what it prints.
std::string printed_by(const Words& words) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::tmpfile(), &std::fclose);
  check(file != nullptr, "[reproduce] cannot make a temporary file");
  {
    const OutputTo output(::fileno(file.get()));
    run_words(words);
  }
  std::string text;
  std::rewind(file.get());
  char bytes[1 << 14];
  while (const size_t count = std::fread(bytes, 1, sizeof bytes, file.get())) {
    text.append(bytes, count);
  }
  return text;
}

void do_step(const Setting& setting, const Step& step) {
  if (step.result.empty()) return run_words(step.words);
  std::error_code error;
  fs::create_directories(step.result.parent_path(), error);
  fs::remove(step.result, error);  // what is there may be of other files than those to come
  std::string text;
  if (step.report.empty()) {
    text = printed_by(step.words);
  } else {
    run_words(step.words);
    text = read_file(step.report);
  }
  const Json made = {{"command", without_device(step.words)},
                     {"machine", machine_of(setting.device)},
                     {"result", parse_json(text, "[reproduce]")}};
  write_file(step.result, dumped(made) + "\n");
}

void do_work(const Setting& setting, const Work& work, const std::vector<Step>& missing,
             const std::string& place) {
  work.prepare();
  for (const Step& step : missing) {
    print_line(stderr, place + " " + work.name + ": " + command_text(step.words));
    do_step(setting, step);
  }
}

}  // namespace

Work work_of(const std::string& name, const std::vector<Step>& steps) {
  Work work;
  work.name = name;
  work.missing = [steps] {
    std::vector<Step> missing;
    for (const Step& step : steps) {
      if (!found(step)) missing.push_back(step);
    }
    return missing;
  };
  return work;
}

std::optional<Finding> found(const Step& step) {
  std::error_code error;
  if (!fs::is_regular_file(step.result, error)) return std::nullopt;
  const Json made = parse_json(read_file(step.result), "[reproduce] " + step.result.string());
  check(made.is_object() && made.contains("command") && made.contains("machine") &&
            made["machine"].is_string() && made.contains("result"),
        "[reproduce] ", step.result.string(), " is no result; remove it");
  if (made["command"] != Json(without_device(step.words))) return std::nullopt;
  return Finding{made["result"], made["machine"].get<std::string>()};
}

std::map<std::string, std::string> do_all(const Setting& setting, const std::vector<Work>& works) {
  std::error_code error;
  fs::create_directories(setting.folder / "locks", error);
  check(!error, "[reproduce] cannot make the folder ", (setting.folder / "locks").string(), ": ",
        error.message());
  std::map<std::string, std::string> diverged;
  std::set<std::string> done;
  const OutputTo progress(STDERR_FILENO);
  while (done.size() < works.size()) {
    const size_t before = done.size();
    for (const Work& work : works) {
      if (done.contains(work.name)) continue;
      // Without the lock another process is at it, and its checkpoints come and go.
      const auto lock = lock_of(setting, work.name);
      if (!lock) continue;
      const std::vector<Step> missing = work.missing();
      if (missing.empty()) {
        done.insert(work.name);
        continue;
      }
      if (diverged.contains(work.needs)) {
        diverged[work.name] = work.needs + " diverged";
        done.insert(work.name);
        continue;
      }
      if (!work.needs.empty() && !done.contains(work.needs)) continue;
      try {
        do_work(setting, work, missing,
                std::to_string(done.size() + 1) + " of " + std::to_string(works.size()));
      } catch (const DivergedError& divergence) {
        diverged[work.name] = divergence.what();
      }
      done.insert(work.name);
    }
    if (done.size() == before) std::this_thread::sleep_for(kBetweenLooks);
  }
  return diverged;
}

OutputTo::OutputTo(int descriptor) {
  std::fflush(stdout);
  saved_ = ::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
  check(saved_ >= 0 && ::dup2(descriptor, STDOUT_FILENO) >= 0,
        "[reproduce] cannot redirect standard output");
}

OutputTo::~OutputTo() {
  std::fflush(stdout);
  ::dup2(saved_, STDOUT_FILENO);
  ::close(saved_);
}

std::string command_text(const Words& words) {
  std::string text = "regla";
  for (const std::string& word : words) {
    const bool is_plain = word.find_first_of(" \"'{}$*?&;|<>()\\`!") == std::string::npos;
    text += is_plain && !word.empty() ? " " + word : " '" + word + "'";
  }
  return text;
}

std::string machine_of(const std::string& device) {
  const Device place = Device::named(device);
  if (!place.is_cpu()) return model_of(place);
  return cpu::processor_model() + ", " + std::to_string(default_threads().threads) + " threads";
}

}  // namespace regla::app
