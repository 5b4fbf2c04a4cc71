#include "layers/mixers/softmax_attention.h"

#include <algorithm>

#include "backends/copies.h"
#include "backends/kernels.h"
#include "layers/feature_maps.h"

namespace regla {
namespace {

constexpr int64_t kLeastRoom = 64;  // entries of a cache that `step` makes

/// Whether a state was joined with room for just this segment, and no gradient goes through it.
bool has_room(const MixerState& state, const HeadProjections::Result& in) {
  const bool is_constant =
      in.k.index < 0 && in.v.index < 0 && state.keys.index < 0 && state.values.index < 0;
  return is_constant && !state.used && state.keys.dim(1) == state.length + in.k.dim(1);
}

/// The first visible cache entry of each token [B, T]; `past` entries lie before the segment.
Tensor first_visible(const Tensor& positions, int64_t past) {
  const Tensor first = Tensor::empty_like(positions);
  kernels(positions.device()).first_keys(positions, past, first);
  return first;
}

}  // namespace

SoftmaxAttentionMixer::SoftmaxAttentionMixer(const MixerConfig& config, const MixerSizes& sizes,
                                             const ParameterFactory& make, const std::string& name)
    : config_(config),
      heads_(sizes.heads),
      K_(config.feature_dim > 0 ? config.feature_dim : sizes.hidden / sizes.heads),
      V_(sizes.hidden / sizes.heads),
      dtype_(make.dtype()),
      device_(make.device()),
      project_(config, sizes, K_, make, name),
      output_(make, name + ".output", heads_ * V_, sizes.hidden, sizes.output_deviation) {}

Var SoftmaxAttentionMixer::chunked(const Var& x, const Segment& segment, MixerState* state) {
  const int64_t past = state ? state->length : 0;
  HeadProjections::Result in = project_(x, segment);
  const Var q = rope(in.q, in.rotation);
  in.k = rope(in.k, in.rotation);
  // From position 0 on, without resets, nothing is hidden.
  const Tensor first =
      state || segment.reset ? first_visible(in.rotation.positions, past) : Tensor{};
  if (past > 0 && has_room(*state, in)) {
    copy_rows(in.k.value, 0, in.k.dim(1), state->keys.value, past);
    copy_rows(in.v.value, 0, in.v.dim(1), state->values.value, past);
    in.k = state->keys;
    in.v = state->values;
  } else if (past > 0) {
    if (state->keys.dim(1) != past) {  // room behind the entries, left by `step`
      state->keys = copied_rows(state->keys.value, 0, past);
      state->values = copied_rows(state->values.value, 0, past);
    }
    in.k = concatenate(state->keys, in.k);
    in.v = concatenate(state->values, in.v);
  }
  const Var o =
      softmax_attention(q, in.k, in.v, first, config_.window, score_scale(ScoreScale::SqrtD, K_));
  if (state) {
    state->keys = in.k;
    state->values = in.v;
    state->length = in.k.dim(1);
    state->used = {};
    trim(*state);
  }
  return finish(o);
}

Tensor SoftmaxAttentionMixer::step(const Token& token, const Tensor& positions, MixerState& state) {
  const int64_t B = token.x.dim(0);
  const HeadProjections::Result in = project_.step(token, positions);
  if (steps_ahead(state) == 0) make_room(state, B, std::max<int64_t>(kLeastRoom, 2 * state.length));
  const Tensor o =
      softmax_attention_step(in.q, in.k, in.v, {state.keys.value, state.values.value, state.used},
                             in.rotation, config_.window, score_scale(ScoreScale::SqrtD, K_));
  ++state.length;
  return linear_step(Token(o.reshape({B, heads_ * V_}), nullptr, token.residual), output_);
}

Var SoftmaxAttentionMixer::finish(const Var& o) {
  return output_(reshape(o, {o.dim(0), o.dim(1), heads_ * V_}));
}

int64_t SoftmaxAttentionMixer::visible(int64_t length) const {
  return config_.window > 0 ? std::min(length, config_.window - 1) : length;
}

void SoftmaxAttentionMixer::trim(MixerState& state) const {
  const int64_t keep = visible(state.length);
  state.keys = last(state.keys, keep);
  state.values = last(state.values, keep);
  state.length = keep;
}

void SoftmaxAttentionMixer::reserve(MixerState& state, int64_t batch, int64_t tokens) const {
  if (steps_ahead(state) < tokens) make_room(state, batch, state.length + tokens);
}

int64_t SoftmaxAttentionMixer::steps_ahead(const MixerState& state) const {
  return state.used ? state.keys.dim(1) - state.length : 0;
}

void SoftmaxAttentionMixer::make_room(MixerState& state, int64_t batch, int64_t room) const {
  if (config_.window > 0) {
    room = std::min(room, std::max<int64_t>(kLeastRoom, 2 * (config_.window - 1)));
  }
  const int64_t length = state.length, keep = visible(length);
  const bool is_larger = !state.used || room > state.keys.dim(1);
  const auto moved = [&](const Var& cache, int64_t N) {
    const Tensor from = is_larger ? cache.value : cache.value.clone();
    Tensor to = is_larger ? Tensor::empty({batch, room, heads_, N}, dtype_, device_) : cache.value;
    if (keep > 0) copy_rows(from, length - keep, keep, to, 0);
    return to;
  };
  state.keys = moved(state.keys, K_);
  state.values = moved(state.values, V_);
  if (is_larger) state.used = Tensor::empty({1}, DType::I32, device_);
  state.used.fill(static_cast<double>(keep));
  state.length = keep;
}

MixerState SoftmaxAttentionMixer::initial_state(int64_t) const { return {}; }

// The window's entries are there from the beginning, and nobody sees them: there are more of them
// than the position says.
MixerState SoftmaxAttentionMixer::initial_carried_state(int64_t batch) const {
  check(config_.window > 0, "[mixer] a cache without a window grows and cannot be carried");
  MixerState state;
  state.length = config_.window - 1;
  state.keys = Tensor::zeros({batch, state.length, heads_, K_}, dtype_, device_);
  state.values = Tensor::zeros({batch, state.length, heads_, V_}, dtype_, device_);
  return state;
}

void SoftmaxAttentionMixer::parameters(ParameterList& list) {
  project_.parameters(list);
  output_.parameters(list);
}

double SoftmaxAttentionMixer::flops_per_token(int64_t length) const {
  const double longest =
      static_cast<double>(config_.window > 0 ? std::min(config_.window, length) : length);
  // On average a token of a segment sees half of it, or the window once that is full.
  const double seen = config_.window > 0 ? longest : (longest + 1) / 2;
  return 2 * seen * static_cast<double>(heads_ * (K_ + V_));
}

int64_t SoftmaxAttentionMixer::state_bytes(int64_t length, DType dtype) const {
  return visible(length) * heads_ * (K_ + V_) * static_cast<int64_t>(size_of(dtype));
}

}  // namespace regla
