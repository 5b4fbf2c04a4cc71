#pragma once

#include <memory>

#include "training/checkpoint.h"
#include "training/objective.h"
#include "training/stages.h"

namespace regla {

/// A decoder that is learned from and learns nothing itself.
using Teacher = std::shared_ptr<Decoder>;

/// Reads a teacher for `student`, onto its device and in its precision. Errors: those of
/// load_model; another tokenizer or vocabulary than the student's; and, where one of the stages
/// matches mixers, a model that differs in more than mixers, dropout and sequence_length, or in
/// none.
Teacher load_teacher(const std::string& run, const Model& student,
                     const std::vector<Stage>& stages);

/// The mean over the layers whose mixer is not the teacher's of relative_error between what both
/// give for what the teacher's reads, in one pass of the teacher; `match.<layer>` is that of a
/// layer. The student's blocks do not see each other.
Objective match_objective(Teacher teacher, const ModelConfig& student);

/// Decoder::divergence from the teacher.
Objective distil_objective(Teacher teacher, double temperature);

/// That of a stage; `teacher` may be null for plain training.
Objective objective_of(const Stage& stage, const Teacher& teacher);

}  // namespace regla
