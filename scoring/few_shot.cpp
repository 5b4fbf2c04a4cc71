#include "scoring/few_shot.h"

#include "core/check.h"

namespace regla {
namespace {

bool draws_examples(const Task& task) {
  return task.examples == Examples::Others || task.examples == Examples::Any;
}

}  // namespace

FewShot::FewShot(const TaskData& data, int64_t shots)
    : data_(data), shots_(draws_examples(*data.task) ? shots : 0) {
  if (shots_ == 0) return;
  const auto size = static_cast<int64_t>(data.pool().size());
  const int64_t drawn = data.task->examples == Examples::Others ? shots_ + 1 : shots_;
  check(drawn <= size, "[eval] ", data.task->name, ": expected at most ", size - (drawn - shots_),
        " shots, since examples are drawn from the ", size, " documents of ",
        (data.training_file.empty() ? data.file : data.training_file).string(), ", got ", shots_);
}

std::vector<int64_t> FewShot::draw(const TaskDocument& document) {
  const std::vector<TaskDocument>& pool = data_.pool();
  const auto size = static_cast<int64_t>(pool.size());
  if (data_.task->examples == Examples::Any) return random_.sample(size, shots_);
  const auto differs = [&](int64_t i) {
    return pool[static_cast<size_t>(i)].fields != document.fields;
  };
  std::vector<int64_t> drawn;
  for (const int64_t i : random_.sample(size, shots_ + 1)) {
    if (differs(i) && static_cast<int64_t>(drawn.size()) < shots_) drawn.push_back(i);
  }
  if (static_cast<int64_t>(drawn.size()) == shots_) return drawn;
  std::vector<int64_t> others;
  for (int64_t i = 0; i < size; ++i) {
    if (differs(i)) others.push_back(i);
  }
  const auto count = static_cast<int64_t>(others.size());
  check(shots_ <= count, "[eval] ", data_.task->name, ": expected at most ", count,
        " shots, since no more documents differ from one that is scored, got ", shots_);
  drawn = random_.sample(count, shots_);
  for (int64_t& i : drawn) i = others[static_cast<size_t>(i)];
  return drawn;
}

std::string FewShot::next(const TaskDocument& document) {
  std::string examples;
  if (shots_ == 0) return examples;
  for (const int64_t i : draw(document)) examples += data_.pool()[static_cast<size_t>(i)].example;
  return examples;
}

}  // namespace regla
