#pragma once

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/all_ops.h"

// Samples of recurrences and attention at the sizes that a GPU has kernels of its own for, and at
// those that it has not.
namespace regla::test {

/// Lengths around those of tiles and chunks, heads of every size that tensor cores take, DPFP's
/// features, and sizes that nobody likes.
inline const std::vector<AttentionSizes> kGpuSizes = {
    {2, 1, 2, 64, 64},   {1, 63, 2, 16, 32},  {1, 65, 2, 32, 16},   {2, 65, 1, 64, 64},
    {1, 63, 1, 96, 128}, {1, 65, 1, 128, 96}, {1, 1000, 1, 64, 64}, {1, 130, 1, 128, 128},
    {1, 65, 1, 384, 64}, {2, 33, 3, 33, 70}};

inline std::string text_of(const AttentionSizes& n) {
  return "B " + std::to_string(n.B) + ", T " + std::to_string(n.T) + ", H " + std::to_string(n.H) +
         ", K " + std::to_string(n.K) + ", V " + std::to_string(n.V);
}

/// Whether an input of a sample of a recurrence is a log of decays.
inline bool is_decay(const OpSample& sample, size_t input) {
  return sample.op == "linear_attention" && input >= 3 && sample.inputs[input].high <= 0;
}

/// Gates that are exactly 1 and exactly 0 here and there.
inline void add_extremes(OpSample& sample) {
  for (size_t i = 0; i < sample.inputs.size(); ++i) {
    if (!is_decay(sample, i)) continue;
    sample.inputs[i].edit = [](Tensor& logs) {
      for (int64_t j = 0; j < logs.numel(); j += 97) logs.data<float>()[j] = 0;
      for (int64_t j = 5; j < logs.numel(); j += 89) {
        logs.data<float>()[j] = -std::numeric_limits<float>::infinity();
      }
    };
  }
}

inline OpSample softmax_attention_sample(const AttentionSizes& n, int64_t past, int64_t window,
                                         bool documents) {
  std::vector<Input> inputs = {
      {{n.B, n.T, n.H, n.K}}, {{n.B, past + n.T, n.H, n.K}}, {{n.B, past + n.T, n.H, n.V}}};
  if (documents) {
    Tensor first = i32({n.B, n.T});
    for (int64_t i = 0; i < first.numel(); ++i) {
      first.data<int32_t>()[i] = static_cast<int32_t>(past + i % n.T / 29 * 29);
    }
    inputs.push_back(integers(first));
  }
  const double scale = 1 / std::sqrt(static_cast<double>(n.K));
  return {"softmax_attention",
          text_of(n) + ", past " + std::to_string(past) + ", window " + std::to_string(window) +
              (documents ? ", documents" : ""),
          inputs, [=](const Vars& in) -> Vars {
            return {softmax_attention(in[0], in[1], in[2], documents ? in[3].value : Tensor{},
                                      window, scale)};
          }};
}

inline std::vector<OpSample> gpu_ops() {
  std::vector<OpSample> list;
  for (const AttentionSizes& n : kGpuSizes) {
    for (const char* decays : {"", "s", "a", "b", "ab", "bs"}) {
      for (const bool extremes : {false, true}) {
        OpSample sample = linear_attention_sample(n, decays, extremes, extremes, 0);
        if (extremes) add_extremes(sample);
        sample.flags += ", " + text_of(n);
        list.push_back(sample);
      }
    }
    const double key = 1.6 / std::sqrt(static_cast<double>(n.K));
    for (const bool more : {false, true}) {
      list.push_back(delta_rule_sample(n, key, more, more, 0));
      list.back().flags += ", " + text_of(n);
    }
    if (n.K > 128) continue;
    list.push_back(softmax_attention_sample(n, 0, 0, false));
    list.push_back(softmax_attention_sample(n, 70, 50, true));
  }
  return list;
}

/// A few for every kernel on tensor cores.
inline std::vector<OpSample> small_gpu_ops() {
  std::vector<OpSample> list;
  for (const AttentionSizes& n :
       std::vector<AttentionSizes>{{1, 65, 1, 16, 32}, {1, 67, 1, 64, 64}, {1, 35, 1, 128, 96}}) {
    for (const char* decays : {"", "as", "b", "ab"}) {
      list.push_back(linear_attention_sample(n, decays, true, true, 0));
      if (n.K != 64) add_extremes(list.back());  // kernels have another way where nothing is 0
    }
    list.push_back(delta_rule_sample(n, 1.6 / std::sqrt(static_cast<double>(n.K)), true, true, 0));
    list.push_back(softmax_attention_sample(n, 70, 50, true));
  }
  return list;
}

}  // namespace regla::test
