#pragma once

#include <algorithm>
#include <cmath>
#include <string>

#include "tests/bfloat16.h"
#include "tests/layers/mixer_contract.h"

// What a mixer loses to the types that it computes in.
namespace regla::test {

/// A segment of random tokens.
struct PrecisionCase {
  MixerConfig config;
  ContractSizes sizes;
  /// Two segments, the second beginning from the state of the first, and documents begin on the
  /// way.
  bool in_parts = false;
  uint64_t draw = 0;  // of tokens and gradients
  int64_t chunk = 16;
};

constexpr ContractSizes kBfloat16Sizes = {.hidden = 64, .heads = 4};

inline Tensor rounded_to(DType door, const Tensor& x, DType wide) {
  return converted(converted(x, door), wide);
}

/// Values, then gradients, of a segment in chunks whose inputs and matrices are of the type `door`
/// before they come into the mixer's.
inline Named results(const PrecisionCase& c, DType dtype, DType door) {
  const TestMixer mixer(c.config, c.sizes, dtype);
  for (Parameter* parameter : mixer.parameters) {
    if (!is_matrix(parameter->role)) continue;
    parameter->value = rounded_to(door, parameter->value, sum_type(dtype));
    parameter->keep_copy(dtype);
  }
  const auto [B, T, past, hidden, heads, device] = c.sizes;
  Settings s;
  // Queries and keys of about one size, however wide the layer is.
  const double deviation = std::sqrt(64.0 / static_cast<double>(std::max<int64_t>(hidden, 64)));
  const Tensor x = mixer.normal({B, T, hidden}, 1 + 2 * c.draw, DType::F32, deviation);
  s.x = rounded_to(door, x, dtype);
  s.d_y = rounded_to(door, mixer.normal({B, T, hidden}, 2 + 2 * c.draw, DType::F32), dtype);
  s.chunk = c.chunk;
  s.seed_state = false;
  if (c.in_parts && T > 2) {
    s.splits = {T / 2 - 1};
    s.reset = random_mask({B, T}, 8, 0.04).on(device);
  }
  return run_segments(mixer, s);
}

inline bool is_of_gate(const std::string& name) {
  return name.find("gate") != std::string::npos || name.find("refine") != std::string::npos;
}

/// How much more than rounding what comes in may be lost where that alone takes up the contract. A
/// mixer rounds about three times as often on its way, and such errors add up as their squares do.
constexpr double kOnTheWay = 2.1;

/// How far a result may be off where that is beyond the contract: so many times what the door
/// loses, and as far as `beside` is from the exact results, and a quarter more. `exact` says which
/// gradients are zero by mathematics where it is not what a result is compared with.
struct RoundingBounds {
  double on_the_way = kOnTheWay;
  const Named* beside = nullptr;
  const Named* exact = nullptr;
};
constexpr double kBeside = 1.25;

/// The contract of BF16 (docs/precision.md) beside `exact`. Nothing in BF16 can be closer than
/// `door`, F32 that begins with the same rounded numbers.
///
/// A gradient that is zero by mathematics is all rounding, and has no size to be compared with. A
/// key's bias moves all scores of a softmax alike: d b = sum of d_k cancels, d W = sum of d_k x
/// does not. Errors of d_k add up to that of d b as, times x of deviation 1, they do to that of d
/// W, so that the one may be as far off as the other. Whatever else vanishes is looked at beside
/// the largest gradient.
inline void check_mixer_rounding(const Named& rounded, const Named& door, const Named& exact,
                                 const RoundingBounds& bounds = {}) {
  double gradients = 1;
  for (const auto& [what, wanted] : exact) {
    if (what.starts_with("d ")) gradients = std::max(gradients, rms_of(wanted));
  }
  const auto vanishes = [&](const std::string& what) {
    return rms_of((bounds.exact ? bounds.exact : &exact)->at(what)) < 1e-5 * gradients;
  };
  const auto allowed = [&](const std::string& what) {  // RMS of the difference over RMS
    const double bound = is_of_gate(what) ? 2e-2 : 5e-3;
    const double at_door = bounds.on_the_way * distance(door.at(what), exact.at(what)).rms;
    if (bounds.beside == nullptr) return std::max(bound, at_door);
    const double beside = kBeside * distance(bounds.beside->at(what), exact.at(what)).rms;
    return std::max({bound, at_door, beside});
  };
  for (const auto& [what, wanted] : exact) {
    INFO(what);
    if (!wanted.defined() || wanted.dtype() == DType::I32) continue;
    REQUIRE(rounded.contains(what));
    const Tensor& value = rounded.at(what);
    const bool is_activation =
        what == "y" || what == "d x" || what == "end keys" || what == "end values";
    CHECK(value.dtype() == (is_activation ? DType::BF16 : DType::F32));
    if (vanishes(what)) {
      const double left = rms_difference(value, wanted);
      const bool is_bias = what.ends_with(".bias");
      const std::string weight = is_bias ? what.substr(0, what.size() - 4) + "weight" : "";
      if (is_bias && exact.contains(weight) && !vanishes(weight)) {
        CHECK(left <= allowed(weight) * rms_of(exact.at(weight)));
      } else {
        CHECK(left < (is_of_gate(what) ? 4e-2 : 1e-2) * gradients);
      }
      continue;
    }
    const Distance at_door = distance(door.at(what), wanted), here = distance(value, wanted);
    Distance beside = {};
    if (bounds.beside != nullptr) beside = distance(bounds.beside->at(what), wanted);
    CHECK(here.rms <= allowed(what));
    CHECK(here.furthest <=
          std::max({kFurthest, bounds.on_the_way * at_door.furthest, kBeside * beside.furthest}));
  }
}

/// Tokens one by one are what they are in chunks, both in BF16.
inline void check_bfloat16_steps(const MixerConfig& config, const ContractSizes& sizes) {
  const TestMixer mixer(config, sizes, DType::BF16);
  const Tensor x = mixer.normal({sizes.B, sizes.T, sizes.hidden}, 1, DType::BF16);
  const Tensor whole = mixer->chunked(x, {}, nullptr).value;
  Carried carried = mixer.initial(sizes.B);
  Tensors ys;
  for (int64_t t = 0; t < sizes.T; ++t) {
    const Tensor token = tokens(x, t, t + 1).reshape({sizes.B, sizes.hidden});
    ys.push_back(carried.step(*mixer, token).reshape({sizes.B, 1, sizes.hidden}));
  }
  CHECK(ys[0].dtype() == DType::BF16);
  check_rounded(joined(ys), whole, 5e-3);
}

}  // namespace regla::test
