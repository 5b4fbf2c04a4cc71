#pragma once

#include <string>
#include <vector>

#include "tests/op_sample.h"

// The samples of all_ops.h of what goes row by row or element by element.
namespace regla::test {

inline void add_row_samples(std::vector<OpSample>& list) {
  for (const Input& x : {Input{{3, 2, 7}}, sums({3, 2, 7})}) {
    list.push_back({"layer_norm",
                    x.is_sum ? "sums" : "",
                    {x, sums({7}), sums({7}), activations()},
                    [](const Vars& in) -> Vars {
                      return {layer_norm(in[0], in[1], in[2], 1e-5, type_of(in[3]))};
                    }});
  }
  for (bool center : {false, true}) {
    list.push_back(
        {"head_norm",
         center ? "center" : "no center",
         {{{2, 3, 3, 5}}, sums({3, 5})},
         [=](const Vars& in) -> Vars { return {head_norm(in[0], in[1], 1e-3, center)}; }});
  }
  for (const Input& x : {Input{{3, 4, 7}}, sums({3, 4, 7})}) {
    list.push_back(
        {"softmax", x.is_sum ? "sums" : "", {x, activations()}, [](const Vars& in) -> Vars {
           return {softmax(in[0], type_of(in[1]))};
         }});
  }
  for (Gelu kind : {Gelu::Erf, Gelu::Tanh}) {
    list.push_back({"gelu",
                    kind == Gelu::Erf ? "erf" : "tanh",
                    {{{5, 17}, -5, 5}},
                    [=](const Vars& in) -> Vars { return {gelu(in[0], kind)}; }});
  }
  list.push_back({"dropout", "from 0", {{{3, 37}}}, [](const Vars& in) -> Vars {
                    return {dropout(in[0], 0.3, {1, 2, 0})};
                  }});
  list.push_back({"dropout", "from 5", {{{3, 37}}}, [](const Vars& in) -> Vars {
                    return {dropout(in[0], 0.3, {1, 2, 5})};
                  }});
  list.push_back({"dropout", "step 3", {{{3, 37}}}, [](const Vars& in) -> Vars {
                    const Tensor step = Tensor::full({1}, 3, DType::I32, in[0].value.device());
                    return {dropout(in[0], 0.3, {1, 2, 5, step})};
                  }});
  list.push_back({"dropout", "rate 0", {{{3, 7}}}, [](const Vars& in) -> Vars {
                    return {dropout(in[0], 0, {1, 2, 5})};
                  }});
  for (double rate : {0.0, 0.3}) {
    list.push_back({"add_dropout",
                    rate > 0 ? "" : "rate 0",
                    {sums({3, 37}), {{3, 37}}},
                    [=](const Vars& in) -> Vars {
                      return {add_dropout(in[0], in[1], rate, {1, 2, 7})};
                    }});
  }
  for (double rate : {0.0, 0.3}) {
    list.push_back(
        {"dropout_norm",
         rate > 0 ? "" : "rate 0",
         {sums({3, 2, 7}), {{3, 2, 7}}, sums({7}), sums({7})},
         [=](const Vars& in) -> Vars {
           const SumAndNorm out = dropout_norm(in[0], in[1], rate, {1, 2, 7}, in[2], in[3], 1e-5);
           return {out.sum, out.norm};
         },
         "SA"});
  }
  for (int64_t rotary : {0, 4, 10}) {
    list.push_back({"rope",
                    std::to_string(rotary) + " of 10",
                    {{{2, 5, 3, 10}}, integers(random_ids({2, 5}, 3, 300))},
                    [=](const Vars& in) -> Vars {
                      return {rope(in[0], {in[1].value, rotary})};
                    }});
  }
}

}  // namespace regla::test
