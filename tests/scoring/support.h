#pragma once

#include <string>
#include <vector>

#include "scoring/task.h"
#include "storage/files.h"
#include "tests/temporary_folder.h"

// What the tests of tasks share.
namespace regla::test {

/// The documents that a task reads from a file of that name with that text.
inline std::vector<TaskDocument> documents(const std::string& task, const std::string& name,
                                           const std::string& text) {
  return task_named(task).read({name, text});
}

/// A task whose one file has this text, read from a folder.
inline TaskData opened(const std::string& task, const std::string& name, const std::string& text,
                       const std::string& training = "") {
  const TemporaryFolder folder;
  const Task& rules = task_named(task);
  const auto inner = folder / std::string(rules.folders[0]);
  std::filesystem::create_directories(inner);
  write_file(inner / name, text);
  if (!training.empty()) write_file(inner / "train.jsonl", training);
  return open_task(rules, folder.path());
}

}  // namespace regla::test
