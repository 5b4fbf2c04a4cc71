#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "scoring/python_random.h"
#include "scoring/task.h"

namespace regla {

/// Draws the examples that stand in front of each document, as lm-evaluation-harness does: by one
/// random.Random(1234) for a task, which goes on from document to document. It draws one more than
/// asked for and leaves out what is the same as the document, also where the pool is a training
/// split; where too few are left, it draws again from all that are not the same.
class FewShot {
 public:
  /// An Error for more examples than the pool holds.
  FewShot(const TaskData& data, int64_t shots);

  /// How many stand in front of a document: as asked for where the task draws them, else 0.
  int64_t shots() const { return shots_; }
  /// The examples for the next document.
  std::string next(const TaskDocument& document);

 private:
  std::vector<int64_t> draw(const TaskDocument& document);

  const TaskData& data_;
  int64_t shots_;
  PythonRandom random_{1234};
};

}  // namespace regla
