#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "layers/mixer.h"
#include "tests/error_of.h"
#include "tests/matchers.h"
#include "tests/sequence.h"
#include "tests/support.h"

// The contract of every mixer: `chunked` with any chunk, `step`, and any split of the sequence with
// carried state are one function of the tokens, in value and in gradient; the future never changes
// the past; a reset begins a sequence; a saved state goes on where it stopped. A new mixer is one
// call of check_mixer_contract.
namespace regla::test {

struct ContractSizes {
  int64_t B = 2, T = 70, past = 9, hidden = 12, heads = 2;
  Device device = {};
};

using MixerMaker =
    std::function<std::unique_ptr<Mixer>(const MixerSizes&, const ParameterFactory&)>;

inline MixerMaker maker_of(const MixerConfig& config) {
  return [=](const MixerSizes& sizes, const ParameterFactory& make) {
    return make_mixer(config, sizes, make, "mixer");
  };
}

/// A mixer's state and the clock that a decoder has beside it.
struct Carried {
  MixerState state;
  Tensor position = {};  // [B] I32: of the next token; undefined: 0

  Carried clone() const { return {state.clone(), position.clone()}; }
  /// The tokens x [B, T, D] that follow.
  Var chunked(Mixer& mixer, const Var& x, Segment segment) {
    segment.positions =
        segment_positions(x.dim(0), x.dim(1), segment.reset, position, x.value.device());
    return mixer.chunked(x, segment, &state);
  }
  /// The token x [B, D] that follows.
  Tensor step(Mixer& mixer, const Tensor& x) {
    return mixer.step(x, segment_positions(x.dim(0), 1, {}, position, x.device()), state);
  }
};

/// A mixer with every parameter random, the same in each type up to rounding.
class TestMixer {
 public:
  TestMixer(const MixerConfig& config, const ContractSizes& sizes, DType type)
      : TestMixer(maker_of(config), sizes, type) {}

  TestMixer(const MixerMaker& make, const ContractSizes& sizes, DType type)
      : n(sizes),
        dtype(type),
        mixer_(make({n.hidden, n.heads, 0.3, 0.3}, {3, DType::F64, n.device})),
        typed_(make({n.hidden, n.heads, 0.3, 0.3}, {3, type, n.device})) {
    ParameterList exact;
    mixer_->parameters(exact);
    typed_->parameters(parameters);
    for (size_t i = 0; i < parameters.size(); ++i) {
      const NoGrad guard;
      const Tensor noise = normal(exact[i]->value.shape(), 50 + i, DType::F64, 0.15);
      parameters[i]->value =
          converted(converted(add(exact[i]->value, noise).value, DType::F32), sum_type(type));
      if (is_operand(parameters[i]->role)) parameters[i]->keep_copy(type);
    }
  }

  Mixer* operator->() const { return typed_.get(); }
  Mixer& operator*() const { return *typed_; }

  Carried initial(int64_t B) const { return {(*this)->initial_state(B)}; }
  /// What a prefix of other tokens leaves behind.
  Carried start() const {
    Carried past = initial(n.B);
    past.chunked(**this, normal({n.B, n.past, n.hidden}, 20, dtype), {});
    return past;
  }

  /// Normal numbers on the mixer's device.
  Tensor normal(const Shape& shape, uint64_t seed, DType type, double deviation = 1) const {
    return normal_tensor(shape, type, seed, deviation).on(n.device);
  }

  ContractSizes n;
  DType dtype;
  ParameterList parameters;

 private:
  std::unique_ptr<Mixer> mixer_, typed_;
};

/// Values and gradients by name.
using Named = std::map<std::string, Tensor>;

inline Named state_values(const MixerState& state) {
  Named values;
  MixerState copy = state.clone();
  copy.for_each([&](const std::string& name, Tensor& tensor) { values["end " + name] = tensor; });
  return values;
}

struct Settings {
  Tensor x, d_y;      // [B, T, D]
  Tensor reset = {};  // [B, T]
  const Carried* start = nullptr;
  int64_t chunk = 0;
  std::vector<int64_t> splits = {};  // where segments end, besides T
  bool seed_state = true;            // the final state has a gradient, too
};

/// Runs segments one after the other on one tape, states in between being Vars.
inline Named run_segments(const TestMixer& mixer, const Settings& s) {
  Tape tape;
  Carried carried = s.start ? s.start->clone() : mixer.initial(s.x.dim(0));
  MixerState& state = carried.state;
  std::vector<std::pair<std::string, Var>> starts;
  for (auto [name, var] : {std::pair<const char*, Var*>{"d S", &state.S},
                           {"d m", &state.m},
                           {"d keys", &state.keys},
                           {"d values", &state.values}}) {
    if (!var->defined() || !s.start) continue;
    *var = tape.leaf(var->value);
    starts.emplace_back(name, *var);
  }
  std::vector<int64_t> ends = s.splits;
  ends.push_back(s.x.dim(1));
  Vars inputs, outputs;
  Tensors seeds, ys, d_xs;
  for (size_t i = 0; i < ends.size(); ++i) {
    const int64_t begin = i == 0 ? 0 : ends[i - 1];
    inputs.push_back(tape.leaf(tokens(s.x, begin, ends[i])));
    const Segment segment = {tokens(s.reset, begin, ends[i]), s.chunk};
    outputs.push_back(carried.chunked(*mixer, inputs.back(), segment));
    seeds.push_back(tokens(s.d_y, begin, ends[i]));
    ys.push_back(outputs.back().value);
  }
  Named result = state_values(state);
  result["y"] = joined(ys);
  uint64_t seed = 30;
  for (const Var* var : {&state.S, &state.m, &state.keys, &state.values}) {
    ++seed;
    if (!var->defined() || !s.seed_state) continue;
    outputs.push_back(*var);
    seeds.push_back(mixer.normal(var->shape(), seed, var->value.dtype()));
  }
  for (Parameter* parameter : mixer.parameters) parameter->clear_gradient();
  tape.backward(outputs, seeds);
  for (const Var& input : inputs) d_xs.push_back(tape.gradient(input));
  result["d x"] = joined(d_xs);
  for (const auto& [name, var] : starts) result[name] = tape.gradient(var);
  for (Parameter* parameter : mixer.parameters) {
    result["d " + parameter->name] =
        parameter->gradient_empty ? Tensor{} : parameter->gradient.clone();
  }
  return result;
}

/// max|a - b| / max|b|, but where b has vanished the size of a against the gradients' own scale.
inline void check_close(const Named& got, const Named& wanted, double bound) {
  for (const auto& [name, b] : wanted) {
    INFO(name);
    const auto found = got.find(name);
    REQUIRE(found != got.end());
    const Tensor& a = found->second;
    const auto size = [](const Tensor& x) { return x ? std::sqrt(dot(x, x)) : 0.0; };
    if (size(b) < 1e-12) {  // a gradient that cancels, as that of a bias which changes nothing
      CHECK(size(a) < 10 * bound);
      continue;
    }
    REQUIRE(a.defined());
    CHECK(relative_error(a, b) < bound);
  }
}

inline void check_mixer_chunks(const TestMixer& exact, const TestMixer& single, Settings s) {
  const int64_t T = exact.n.T;
  s.chunk = 1;
  const Named reference = run_segments(exact, s);
  for (int64_t chunk : std::vector<int64_t>{0, 2, 7, 16, 64, T, T + 5}) {
    INFO("chunk " << chunk);
    s.chunk = chunk;
    check_close(run_segments(exact, s), reference, 1e-10);
  }
  Carried start;
  if (s.start) {
    start = s.start->clone();
    MixerState& state = start.state;
    for (Var* var : {&state.S, &state.m, &state.keys, &state.values}) {
      if (var->defined()) *var = converted(var->value, DType::F32);
    }
    s.start = &start;
  }
  s.x = converted(s.x, DType::F32);
  s.d_y = converted(s.d_y, DType::F32);
  for (int64_t chunk : std::vector<int64_t>{1, 16, T}) {
    INFO("float, chunk " << chunk);
    s.chunk = chunk;
    check_close(run_segments(single, s), reference, 1e-4);
  }
}

inline void check_mixer_splits(const TestMixer& mixer, Settings s) {
  s.chunk = 16;
  const Named whole = run_segments(mixer, s);
  const int64_t T = mixer.n.T;
  for (std::vector<int64_t> splits :
       {std::vector<int64_t>{1}, {5}, {16}, {T - 1}, {3, 4, 30, 65}}) {
    std::erase_if(splits, [=](int64_t split) { return split < 1 || split >= T; });
    if (splits.empty()) continue;
    INFO("first split at " << splits[0]);
    s.splits = splits;
    check_close(run_segments(mixer, s), whole, 1e-10);
  }
}

inline bool share_memory(const MixerState& a, const MixerState& b) {
  return a.S.value.shares_memory_with(b.S.value) && a.m.value.shares_memory_with(b.m.value) &&
         a.keys.value.shares_memory_with(b.keys.value) &&
         a.values.value.shares_memory_with(b.values.value) && a.used.shares_memory_with(b.used);
}

/// Token by token, from the state `chunked` starts from.
inline void check_mixer_steps(const TestMixer& mixer, const Settings& s, double bound) {
  const Named whole = run_segments(mixer, s);
  Carried carried = s.start ? s.start->clone() : mixer.initial(s.x.dim(0));
  MixerState& state = carried.state;
  const int64_t B = s.x.dim(0), D = s.x.dim(2);
  Tensors ys;
  for (int64_t t = 0; t < s.x.dim(1); ++t) {
    if (t == 40) {  // saved and restored on the way
      state = state.clone();
    }
    if (t == 50) mixer->reserve(state, B, 20);
    const MixerState before = state;
    const int64_t ahead = mixer->steps_ahead(state);
    const Tensor x = tokens(s.x, t, t + 1).reshape({B, D});
    ys.push_back(carried.step(*mixer, x).reshape({B, 1, D}));
    if (ahead > 0) {
      CHECK(share_memory(before, state));
      CHECK((mixer->steps_ahead(state) == ahead - 1 || !state.keys.defined()));
    }
    if (state.used) CHECK(state.used.values()[0] == static_cast<double>(state.length));
  }
  Named got = state_values(state);
  got["y"] = joined(ys);
  Named wanted;
  for (auto& [name, value] : got) {
    wanted[name] = whole.at(name);
    // A cache of `step` may still hold entries that no later token can see.
    const int64_t length = wanted[name].rank() > 1 ? wanted[name].dim(1) : 0;
    const NoGrad guard;
    if (name == "end keys" || name == "end values") value = last(value, length).value;
  }
  check_close(got, wanted, bound);
}

/// A later token changes no earlier output, not by a bit.
inline bool past_is_unchanged(const TestMixer& mixer, const Settings& s, int64_t chunk) {
  const auto outputs = [&](const Tensor& x) {
    return mixer.initial(x.dim(0)).chunked(*mixer, x, {s.reset, chunk}).value;
  };
  const Tensor before = outputs(s.x);
  for (int64_t t : {1, 15, 16, 33, 64, 69}) {
    if (t >= s.x.dim(1)) break;
    Tensor x = s.x.clone();
    for (int64_t b = 0; b < x.dim(0); ++b) {
      x.slice(b, b + 1).reshape({x.dim(1), x.dim(2)}).slice(t, t + 1).fill(10);
    }
    const Tensor after = outputs(x);
    if (!same_bits(tokens(after, 0, t), tokens(before, 0, t))) return false;
    if (same_bits(after, before)) return false;
  }
  return true;
}

/// Writes the tensors of a state over those of another, which has the same.
inline void copy_state(MixerState from, MixerState& to) {
  Named saved;
  from.for_each([&](const std::string& name, Tensor& tensor) { saved[name] = tensor; });
  to.for_each([&](const std::string& name, Tensor& tensor) {
    REQUIRE(saved.contains(name));
    REQUIRE(saved[name].shape() == tensor.shape());
    REQUIRE(saved[name].dtype() == tensor.dtype());
    tensor.copy_from(saved[name]);
    saved.erase(name);
  });
  REQUIRE(saved.empty());
}

inline void check_saved_state(const TestMixer& mixer, const Settings& s) {
  const int64_t B = s.x.dim(0);
  const std::string error = error_of([&] { mixer->initial_carried_state(B); });
  if (error != "no error") {
    CHECK(error == "[mixer] a cache without a window grows and cannot be carried");
    CHECK(mixer.start().state.keys.dim(1) == mixer.n.past);
    return;
  }
  for (int64_t stop : {1, 10, 66}) {
    if (stop >= s.x.dim(1)) break;
    const Segment begin = {tokens(s.reset, 0, stop), 7};
    Carried carried = {mixer->initial_carried_state(B)}, usual = mixer.initial(B);
    Carried without_resets = {mixer->initial_carried_state(B)};
    const Var y = carried.chunked(*mixer, tokens(s.x, 0, stop), begin);
    CHECK(same_bits(y.value, usual.chunked(*mixer, tokens(s.x, 0, stop), begin).value));
    carried.state.check_values("state");
    Carried restored = {mixer->initial_carried_state(B), carried.position.clone()};
    copy_state(carried.state, restored.state);
    without_resets.chunked(*mixer, tokens(s.x, 0, stop), {{}, 7});
    MixerState other = mixer->initial_carried_state(B);
    copy_state(without_resets.state, other);
    const int64_t T = s.x.dim(1);
    const Segment rest = {tokens(s.reset, stop, T), 7};
    const Var a = carried.chunked(*mixer, tokens(s.x, stop, T), rest);
    const Var b = restored.chunked(*mixer, tokens(s.x, stop, T), rest);
    CHECK(same_bits(a.value, b.value));
    const Named first = state_values(carried.state), second = state_values(restored.state);
    REQUIRE(first.size() == second.size());
    for (const auto& [name, value] : first) CHECK(same_bits(value, second.at(name)));
  }
}

/// One row of a batch's state.
inline Carried row_of(const Carried& all, int64_t b) {
  Carried row = {all.state.clone(), all.position.slice(b, b + 1).clone()};
  row.state.for_each(
      [&](const std::string&, Tensor& tensor) { tensor = tensor.slice(b, b + 1).clone(); });
  return row;
}

/// Each document of each row on its own gives what the reset mask gives in one go.
inline void check_mixer_resets(const TestMixer& mixer, Settings s) {
  s.seed_state = false;
  s.chunk = 16;
  const Named whole = run_segments(mixer, s);
  const Tensor resets = s.reset.on(Device{});
  Named apart;
  Tensors ys, d_xs;
  for (int64_t b = 0; b < mixer.n.B; ++b) {
    const Carried start = row_of(*s.start, b);
    Tensors y_parts, d_x_parts;
    for (int64_t begin = 0, end = 0; begin < mixer.n.T; begin = end) {
      const int32_t* reset = resets.data<int32_t>() + b * mixer.n.T;
      for (end = begin + 1; end < mixer.n.T && reset[end] == 0;) ++end;
      Settings part = s;
      part.x = tokens(s.x.slice(b, b + 1), begin, end);
      part.d_y = tokens(s.d_y.slice(b, b + 1), begin, end);
      part.reset = {};
      part.start = reset[begin] == 0 ? &start : nullptr;
      const Named result = run_segments(mixer, part);
      y_parts.push_back(result.at("y"));
      d_x_parts.push_back(result.at("d x"));
      const NoGrad guard;
      for (const Parameter* parameter : mixer.parameters) {
        Tensor& sum = apart["d " + parameter->name];
        const Tensor& more = result.at("d " + parameter->name);
        sum = sum ? add(sum, more).value : more;
      }
    }
    ys.push_back(joined(y_parts).reshape({1, mixer.n.T * mixer.n.hidden}));
    d_xs.push_back(joined(d_x_parts).reshape({1, mixer.n.T * mixer.n.hidden}));
  }
  const auto rows = [&](const Tensors& parts) {
    Tensors flat;
    for (const Tensor& part : parts) flat.push_back(part.reshape({1, part.numel()}));
    return joined(flat).reshape(s.x.shape());
  };
  apart["y"] = rows(ys);
  apart["d x"] = rows(d_xs);
  Named wanted;
  for (const auto& [name, value] : apart) wanted[name] = whole.at(name);
  check_close(wanted, apart, 1e-10);
}

/// All of it. `sees_the_future`: the mixer is known to break causality, and must be shown to.
inline void check_mixer_contract(const MixerMaker& make, bool sees_the_future = false,
                                 const ContractSizes& sizes = {}) {
  const TestMixer exact(make, sizes, DType::F64), single(make, sizes, DType::F32);
  const Carried start = exact.start();
  Tensor reset = random_mask({sizes.B, sizes.T}, 8, 0.06);
  reset.data<int32_t>()[sizes.T] = 1;  // the second sequence begins with one
  Settings s;
  s.x = exact.normal({sizes.B, sizes.T, sizes.hidden}, 1, DType::F64);
  s.d_y = exact.normal(s.x.shape(), 2, DType::F64);
  const auto sections = [&](const std::string& what) {
    INFO(what);
    check_mixer_chunks(exact, single, s);
    check_mixer_splits(exact, s);
    if (s.reset) return;
    if (!sees_the_future) return check_mixer_steps(exact, s, 1e-10);
    Carried state = start.clone();
    CHECK_THROWS_WITH(state.step(*exact, tokens(s.x, 0, 1).reshape({sizes.B, sizes.hidden})),
                      Contains("cannot be decoded token by token"));
  };
  sections("from nothing");
  s.start = &start;
  sections("from a state");
  s.reset = reset.on(sizes.device);
  sections("from a state, with resets");
  check_mixer_resets(exact, s);
  check_saved_state(exact, s);
  s.reset = {};
  for (int64_t chunk : std::vector<int64_t>{0, 1, 7, 16, sizes.T}) {
    INFO("chunk " << chunk);
    CHECK(past_is_unchanged(exact, s, chunk) != sees_the_future);
  }
}

inline void check_mixer_contract(const MixerConfig& config, bool sees_the_future = false,
                                 const ContractSizes& sizes = {}) {
  check_mixer_contract(maker_of(config), sees_the_future, sizes);
}

}  // namespace regla::test
