#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "autograd/ops.h"
#include "tests/op_sample.h"

// Samples of the ops that decode a token: more entries for the list of all_ops.h.
namespace regla::test {

/// Ops of a decoding step, which have no gradients.
inline void add_step_samples(std::vector<OpSample>& list) {
  const auto sample = [&](const char* op, const std::string& flags, std::vector<Input> inputs,
                          const std::function<Tensors(const Vars&)>& apply, const char* types) {
    for (Input& input : inputs) input.differentiable = false;
    list.push_back({op, flags, inputs,
                    [=](const Vars& in) -> Vars {
                      const NoGrad guard;
                      const Tensors out = apply(in);
                      return {out.begin(), out.end()};
                    },
                    types});
  };
  sample(
      "linear_step", "three of one norm",
      {sums({3, 8}), sums({8}), sums({8}), {{12, 8}}, sums({12}), {{5, 8}}, {{16, 8}}},
      [](const Vars& in) -> Tensors {
        const DType A = type_of(in[3]), S = sum_type(A);
        return linear_step(in[0], {in[1], in[2], 1e-5},
                           {{in[3], in[4], A}, {in[5], {}, S}, {in[6], {}, A}}, A);
      },
      "ASA");
  for (const Gelu kind : {Gelu::Erf, Gelu::Tanh}) {
    sample(
        "linear_step", kind == Gelu::Erf ? "erf" : "tanh", {{{2, 7}}, {{5, 7}}, sums({5})},
        [=](const Vars& in) -> Tensors {
          const DType A = type_of(in[0]);
          return linear_step(in[0], {}, {{in[1], in[2], A}}, A, kind);
        },
        "A");
  }
  sample(
      "linear_step", "residual", {{{2, 7}}, {{5, 7}}, sums({5}), sums({2, 5})},
      [](const Vars& in) -> Tensors {
        const DType A = type_of(in[0]);
        return linear_step(in[0], {}, {{in[1], in[2], A}}, A, {}, in[3]);
      },
      "S");
  for (const bool gated : {false, true}) {
    for (const int64_t rotary : {0, 4}) {
      sample(
          "regla_step",
          std::string(gated ? "gate and norm" : "plain") + ", turns " + std::to_string(rotary),
          {sums({2, 1, 3, 6}),
           sums({2, 1, 3, 6}),
           {{2, 1, 3, 5}},
           {{2, 1, 3, 5}},
           {{2, 1, 3, 5}},
           {{2, 1, 3, 5}},
           integers(random_ids({2, 1}, 3, 300)),
           sums({3, 5}),
           sums({2, 3}),
           sums({2, 3, 6, 5})},
          [=](const Vars& in) -> Tensors {
            const Tensor m = in[8].value.clone(), state = in[9].value.clone();
            const ReglaToken token = {
                in[0], in[1], in[2], in[3], in[4], gated ? in[5] : Var{}, {in[6].value, rotary},
                0.3};
            const HeadNorm norm = gated ? HeadNorm{in[7], 1e-3, true} : HeadNorm{};
            return {regla_step(token, norm, m, state), m, state};
          },
          "ASS");
    }
  }
}

}  // namespace regla::test
