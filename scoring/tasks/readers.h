#pragma once

#include <vector>

#include "scoring/task.h"

namespace regla {

// The documents of each task from one of its files. Both the form in which a data set was published
// and the one that data set libraries give are read; docs/tasks.md, "What is read" has the keys.

std::vector<TaskDocument> read_boolq(const TaskFile& file);
/// Labels may lie in a file beside it, `valid-labels.lst` beside `valid.jsonl`.
std::vector<TaskDocument> read_piqa(const TaskFile& file);
std::vector<TaskDocument> read_hellaswag(const TaskFile& file);
std::vector<TaskDocument> read_winogrande(const TaskFile& file);
std::vector<TaskDocument> read_truthfulqa_mc1(const TaskFile& file);
std::vector<TaskDocument> read_truthfulqa_mc2(const TaskFile& file);
std::vector<TaskDocument> read_lambada(const TaskFile& file);
std::vector<TaskDocument> read_wikitext(const TaskFile& file);

}  // namespace regla
