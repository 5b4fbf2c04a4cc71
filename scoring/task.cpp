#include "scoring/task.h"

#include "core/check.h"
#include "scoring/tasks/readers.h"
#include "storage/files.h"
#include "storage/sha256.h"

namespace regla {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string_view>;

constexpr uint64_t kMostBytes = uint64_t{1} << 30;  // of a task's file

const std::vector<Task>& list() {
  static const Names truthfulqa = {"mc_task.json",     "TruthfulQA_data_mc_task.json",
                                   "validation.jsonl", "validation.json",
                                   "TruthfulQA.csv",   "TruthfulQA_TruthfulQA.csv"};
  static const std::vector<Task> tasks = {
      {"boolq",
       "2.0",
       Measure::Choice,
       false,
       Examples::Others,
       {"boolq"},
       {"dev.jsonl", "val.jsonl", "validation.jsonl", "validation.json"},
       {"train.jsonl", "train.json"},
       read_boolq},
      {"piqa",
       "1.0",
       Measure::Choice,
       true,
       Examples::Others,
       {"piqa"},
       {"valid.jsonl", "dev.jsonl", "validation.jsonl", "validation.json"},
       {"train.jsonl", "train.json"},
       read_piqa},
      {"hellaswag",
       "1.0",
       Measure::Choice,
       true,
       Examples::Others,
       {"hellaswag"},
       {"hellaswag_val.jsonl", "validation.jsonl", "validation.json",
        "hellaswag_val.subset1000.jsonl"},
       {"hellaswag_train.jsonl", "train.jsonl", "train.json"},
       read_hellaswag},
      {"winogrande",
       "1.0",
       Measure::Choice,
       false,
       Examples::Others,
       {"winogrande"},
       {"dev.jsonl", "validation.jsonl", "validation.json"},
       {"train_xl.jsonl", "train.jsonl", "train.json"},
       read_winogrande},
      {"truthfulqa_mc1",
       "2.0",
       Measure::Choice,
       false,
       Examples::Own,
       {"truthfulqa"},
       truthfulqa,
       {},
       read_truthfulqa_mc1},
      {"truthfulqa_mc2",
       "3.0",
       Measure::TrueMass,
       false,
       Examples::Own,
       {"truthfulqa"},
       truthfulqa,
       {},
       read_truthfulqa_mc2},
      {"lambada",
       "1.0",
       Measure::Word,
       false,
       Examples::Any,
       {"lambada"},
       {"lambada_test.jsonl", "lambada_test_en.jsonl", "test.jsonl", "test.json",
        "lambada_sample20.jsonl"},
       {},
       read_lambada},
      {"wikitext",
       "2.0",
       Measure::Text,
       false,
       Examples::Nothing,
       {"wikitext", "wikitext-2", "wikitext-2-raw"},
       {"wiki.test.raw", "test.jsonl", "test.json"},
       {},
       read_wikitext}};
  return tasks;
}

std::string joined(const Names& names) {
  std::string all;
  for (const std::string_view name : names) all.append(all.empty() ? "" : ", ").append(name);
  return all;
}

/// The first of these files that is there, or nothing.
fs::path found_file(const fs::path& folder, const Names& folders, const Names& files) {
  for (const std::string_view inner : folders) {
    for (const std::string_view name : files) {
      std::error_code ignored;
      if (fs::exists(folder / inner / name, ignored)) return folder / inner / name;
    }
  }
  return {};
}

}  // namespace

std::span<const Task> all_tasks() { return list(); }

const Task& task_named(std::string_view name) {
  Names names;
  for (const Task& task : list()) {
    if (task.name == name) return task;
    names.push_back(task.name);
  }
  fail("[eval] expected tasks among ", joined(names), ", got \"", name, "\"");
}

TaskData open_task(const Task& task, const fs::path& folder) {
  TaskData data;
  data.task = &task;
  data.file = found_file(folder, task.folders, task.files);
  check(!data.file.empty(), "[eval] ", task.name, ": expected one of ", joined(task.files), " in ",
        (folder / task.folders[0]).string());
  const auto read = [&](const fs::path& path, std::string& hash) {
    const TaskFile file = {path, read_file(path, kMostBytes)};
    hash = sha256(file.text);
    return task.read(file);
  };
  data.documents = read(data.file, data.hash);
  data.training_file = found_file(folder, task.folders, task.training_files);
  if (!data.training_file.empty()) {
    data.training_documents = read(data.training_file, data.training_hash);
  }
  return data;
}

}  // namespace regla
