#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "app/reproduce/experiments.h"
#include "storage/json_fields.h"

// How experiments get done: as commands of this program, which are what a user would type. What is
// done is seen on the disk, so that a call after a call does what is left.
namespace regla::app {

/// The words of a command, behind the program's name.
using Words = std::vector<std::string>;

/// What a call of `regla reproduce` was asked for.
struct Setting {
  const Scale* scale = nullptr;
  std::filesystem::path folder;  ///< of this scale: <out>/<scale>
  std::string data, task_data, split, device, teacher;
  std::vector<std::string> set;
  int64_t seeds = 1;
  std::optional<int64_t> limit;
};

/// One command.
struct Step {
  Words words;
  /// Where what it found is kept, with the command; empty for one whose run is all that is wanted.
  std::filesystem::path result;
  /// The JSON that it writes; empty: what it finds is what it prints.
  std::filesystem::path report;
};

/// Something to be done once, by whichever process comes first.
struct Work {
  std::string name;                            ///< of its lock, and in messages
  std::string needs;                           ///< the name of the work before it, if there is one
  std::function<std::vector<Step>()> missing;  ///< what is left to do; nothing: it is done
  std::function<void()> prepare = [] {};       ///< before the first step
  int64_t updates = 0, tokens = 0;             ///< of training that are left
  double seconds = 0;                          ///< that a figure takes, about
};

/// The work of steps that depend on nothing, each of which leaves a result.
Work work_of(const std::string& name, const std::vector<Step>& steps);

/// What a command found.
struct Finding {
  Json result;
  std::string machine;  ///< that it ran on
};

/// What `step` found when it was done; nothing if that is not there, or of another command. The
/// device is no part of a command here.
std::optional<Finding> found(const Step& step);

/// Does all of it, each under a lock, so that several processes with the same folder share the
/// work; comes back when everything is done. Returns the trainings that diverged, with why. Errors
/// are those of the commands.
std::map<std::string, std::string> do_all(const Setting& setting, const std::vector<Work>& works);

/// A command ended early because it was asked to.
struct Interrupted {};

/// Standard output leads elsewhere while this lives.
class OutputTo {
 public:
  explicit OutputTo(int descriptor);
  ~OutputTo();
  OutputTo(const OutputTo&) = delete;
  OutputTo& operator=(const OutputTo&) = delete;

 private:
  int saved_;
};

/// A command as it could be typed.
std::string command_text(const Words& words);

/// What a device is, to be named beside its numbers: a processor with the threads used, a GPU.
std::string machine_of(const std::string& device);

}  // namespace regla::app
