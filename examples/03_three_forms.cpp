// Example 3: three forms of one function.
//
// A mixer computes the same function of its tokens in every form:
//
//     parallel    chunked(T): one chunk, an attention with decays; O(T^2), all matrix products
//     chunked     chunked(C): within a chunk as above, between chunks through the state S
//     recurrence  chunked(1): one state update per token
//     step        one token at a time with the state handed on, which is how text is generated
//
// For one chunk of C tokens that starts from S_in, with D_ts[j] the product of the gates of value j
// from s+1 to t, D_t[j] that from the chunk's first token to t:
//
//     o_t[j]     = sum_{s<=t} (q_t k_s) D_ts[j] v_s[j]  +  D_t[j] sum_i q_t[i] S_in[i,j]
//     S_out[i,j] = D_C[j] S_in[i,j]  +  sum_s k_s[i] D_Cs[j] v_s[j]
//
// This program runs one ReGLA mixer (projections, safe exp, refined gate, recurrence, stable norm)
// in all forms on the same random tokens and prints how far the outputs lie apart.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "core/random.h"
#include "layers/mixer.h"

using regla::Tensor;

constexpr int64_t kBatch = 2, kTime = 77, kHidden = 32, kHeads = 2;

Tensor random_tokens() {
  Tensor x = Tensor::empty({kBatch, kTime, kHidden}, regla::DType::F32);
  const regla::Random random(/*seed=*/1, /*stream=*/0);
  for (int64_t i = 0; i < x.numel(); ++i) {
    x.data<float>()[i] = static_cast<float>(random.normal(static_cast<uint64_t>(i)));
  }
  return x;
}

Tensor by_chunks(regla::Mixer& mixer, const Tensor& x, int64_t chunk) {
  return mixer.chunked(x, {.reset = {}, .chunk = chunk}, nullptr).value;
}

Tensor by_steps(regla::Mixer& mixer, const Tensor& x) {
  Tensor y = Tensor::empty_like(x);
  regla::MixerState state = mixer.initial_state(kBatch);
  Tensor next;  // position of the next token of each sequence; undefined: 0
  for (int64_t t = 0; t < kTime; ++t) {
    // Token t of every sequence: x[b, t, :].
    const auto row = [&](const Tensor& all, int64_t b) {
      return all.slice(b, b + 1).reshape({kTime, kHidden}).slice(t, t + 1);
    };
    Tensor token = Tensor::empty({kBatch, kHidden}, x.dtype());
    for (int64_t b = 0; b < kBatch; ++b) token.slice(b, b + 1).copy_from(row(x, b));
    const Tensor positions = regla::segment_positions(kBatch, 1, /*reset=*/{}, next);
    const Tensor out = mixer.step(token, positions, state);
    for (int64_t b = 0; b < kBatch; ++b) row(y, b).copy_from(out.slice(b, b + 1));
  }
  return y;
}

/// max |a - b| / max |b|
double distance(const Tensor& a, const Tensor& b) {
  const std::vector<double> x = a.values(), y = b.values();
  double difference = 0, largest = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    difference = std::max(difference, std::fabs(x[i] - y[i]));
    largest = std::max(largest, std::fabs(y[i]));
  }
  return difference / largest;
}

int main() {
  const regla::ParameterFactory make(/*seed=*/0, regla::DType::F32);
  const auto mixer = regla::make_mixer(regla::MixerConfig{},  // the defaults are ReGLA
                                       {kHidden, kHeads, 0.3, 0.3}, make, "mixer");
  const Tensor x = random_tokens();
  const Tensor parallel = by_chunks(*mixer, x, kTime);

  double worst = 0;
  const auto report = [&](const char* form, const Tensor& y) {
    const double d = distance(y, parallel);
    std::printf("%-22s %.1e\n", form, d);
    worst = std::max(worst, d);
  };
  std::printf("against the parallel form, %d tokens in float:\n", static_cast<int>(kTime));
  report("chunks of 16", by_chunks(*mixer, x, 16));
  report("chunks of 1", by_chunks(*mixer, x, 1));
  report("step by step", by_steps(*mixer, x));

  // What a sequence costs to remember does not grow with its length.
  for (const int64_t length : {int64_t{100}, int64_t{100'000}}) {
    std::printf("state after %6d tokens: %d bytes\n", static_cast<int>(length),
                static_cast<int>(mixer->state_bytes(length, regla::DType::F32)));
  }
  return worst < 1e-4 ? 0 : 1;
}
