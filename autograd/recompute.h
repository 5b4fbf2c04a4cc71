#pragma once

#include <functional>

#include "autograd/tape.h"

namespace regla {

/// A function of Vars that gives the same bits whenever it runs on the same values. It may use
/// parameters; values of a tape must come to it through its arguments.
using VarFunction = std::function<Vars(const Vars&)>;

/// f(in), recorded as one op that keeps `in` and nothing that f computes on its way: backward runs
/// f again, on a tape of its own that is gone when it is done. Values and gradients have the bits
/// of f(in) as long as nothing else on the tape uses the same inputs: their gradients are summed in
/// f first. (Activation checkpointing: Chen et al. 2016.)
Vars recompute(const VarFunction& f, const Vars& in);

}  // namespace regla
