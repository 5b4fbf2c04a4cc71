#pragma once

#include "backends/cuda/recurrence.cuh"

namespace regla::cuda {

/// The inputs of core/recurrences/delta_rule.h for all heads.
template <class S>
struct DeltaRuleInputs {
  Heads heads;
  Elements<S> q, k, v, g;

  explicit DeltaRuleInputs(const DeltaRuleArgs& args)
      : heads{args.q.dim(1), args.q.dim(2), args.q.dim(3), args.v.dim(3),
              args.reset ? args.reset.data<int32_t>() : nullptr},
        q(args.q),
        k(args.k),
        v(args.v),
        g(args.g) {}
};

}  // namespace regla::cuda
