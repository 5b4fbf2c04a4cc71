#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace regla {

/// One document of a task, as the model gets it. Its requests are pairs of a context and a
/// continuation whose log-likelihood is asked for: one for each choice, or one.
struct TaskDocument {
  /// All that the file says of it in one order: two documents are the same where this is.
  std::string fields;
  std::vector<std::string> contexts;       // one, or one for each continuation
  std::vector<std::string> continuations;  // one, or one for each context
  std::string example;                     // solved, as it stands in front of another one's context
  std::vector<int64_t> characters;         // of each choice
  std::vector<bool> is_true;               // for each choice, where several may be
  int64_t gold = 0;                        // the right choice
  int64_t words = 0, bytes = 0;            // of a text before it was detokenised

  size_t requests() const { return std::max(contexts.size(), continuations.size()); }
  const std::string& context(size_t i) const { return contexts[contexts.size() > 1 ? i : 0]; }
  const std::string& continuation(size_t i) const {
    return continuations[continuations.size() > 1 ? i : 0];
  }
};

/// What is computed from log-likelihoods.
enum class Measure : uint8_t {
  Choice,    // whether the likeliest choice is the right one
  TrueMass,  // the share of the true choices in the probability of all
  Word,      // perplexity of the continuation, and whether it is what greedy decoding gives
  Text,      // perplexity per word and byte of whole texts
};

/// Where the examples in front of a question come from.
enum class Examples : uint8_t {
  Others,   // from the training split, or from the other documents where there is none
  Any,      // from the documents themselves, this one among them
  Own,      // the task's own, however many are asked for
  Nothing,  // it has no context
};

/// A file as it was read, for a task's reader: each document that it finds is a line, an element or
/// a page of it.
struct TaskFile {
  std::filesystem::path path;
  std::string text;
};

/// The rules of a task, which are those of lm-evaluation-harness (docs/tasks.md).
struct Task {
  std::string_view name;
  std::string_view version;  // of the harness's task file
  Measure measure;
  bool by_length;  // whether acc_norm is reported
  Examples examples;
  std::vector<std::string_view> folders, files, training_files;  // by preference
  std::vector<TaskDocument> (*read)(const TaskFile&);
};

/// The version of lm-evaluation-harness that tasks follow.
constexpr std::string_view kHarnessVersion = "0.4.13";

/// All tasks there are.
std::span<const Task> all_tasks();
/// The task of that name; an Error that lists the names where there is none.
const Task& task_named(std::string_view name);

/// The documents of a task and what examples are drawn from.
struct TaskData {
  const Task* task = nullptr;
  std::filesystem::path file, training_file;  // no training file: the documents are the pool
  std::string hash, training_hash;            // SHA-256
  std::vector<TaskDocument> documents, training_documents;

  const std::vector<TaskDocument>& pool() const {
    return training_file.empty() ? documents : training_documents;
  }
};

/// Reads the files of a task in a folder that has a folder for each task. Errors name file and
/// line: no such file, broken JSON, a document without what its task needs.
TaskData open_task(const Task& task, const std::filesystem::path& folder);

}  // namespace regla
