#include "layers/mixers/softmax_attention.h"

#include <algorithm>

#include "backends/copies.h"
#include "backends/kernels.h"
#include "layers/feature_maps.h"

namespace regla {
namespace {

/// Entries [begin, end) of a cache [B, capacity, H, N] in one with room for `capacity`.
Tensor with_capacity(const Tensor& cache, int64_t begin, int64_t end, int64_t capacity) {
  Tensor larger = Tensor::empty({cache.dim(0), capacity, cache.dim(2), cache.dim(3)}, cache.dtype(),
                                cache.device());
  copy_rows(cache, begin, end - begin, larger, 0);
  return larger;
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
  HeadProjections::Result in = project_(x, segment, state);
  // From position 0 on, without resets, nothing is hidden.
  const Tensor first = state || segment.reset ? first_visible(in.positions, past) : Tensor{};
  if (past > 0) {
    if (state->keys.dim(1) != past) {  // room behind the entries, left by `step`
      state->keys = with_capacity(state->keys.value, 0, past, past);
      state->values = with_capacity(state->values.value, 0, past, past);
    }
    in.k = concatenate(state->keys, in.k);
    in.v = concatenate(state->values, in.v);
  }
  const Var o = softmax_attention(in.q, in.k, in.v, first, config_.window,
                                  score_scale(ScoreScale::SqrtD, K_));
  if (state) {
    state->keys = in.k;
    state->values = in.v;
    state->length = in.k.dim(1);
    trim(*state);
  }
  return finish(o);
}

Tensor SoftmaxAttentionMixer::step(const Tensor& x, MixerState& state) {
  const Var token = x.reshape({x.dim(0), 1, x.dim(1)});
  const HeadProjections::Result in = project_(token, {}, &state);
  const int64_t capacity = state.keys.defined() ? state.keys.dim(1) : 0;
  if (state.length == capacity) {
    // Full: entries outside the window go, or the room doubles.
    trim(state);
    const int64_t room = std::max<int64_t>(64, 2 * state.length);
    if (state.keys.defined()) {
      state.keys = with_capacity(state.keys.value, 0, state.length, room);
      state.values = with_capacity(state.values.value, 0, state.length, room);
    } else {
      state.keys = Tensor::empty({x.dim(0), room, heads_, K_}, dtype_, x.device());
      state.values = Tensor::empty({x.dim(0), room, heads_, V_}, dtype_, x.device());
    }
  }
  copy_rows(in.k.value, 0, 1, state.keys.value, state.length);
  copy_rows(in.v.value, 0, 1, state.values.value, state.length);
  ++state.length;
  const Tensor first = first_visible(in.positions, state.length - 1);
  const Var o = softmax_attention(in.q, state.keys.value, state.values.value, first, config_.window,
                                  score_scale(ScoreScale::SqrtD, K_), state.length);
  return finish(o).value.reshape(x.shape());
}

Var SoftmaxAttentionMixer::finish(const Var& o) {
  return output_(reshape(o, {o.dim(0), o.dim(1), heads_ * V_}));
}

int64_t SoftmaxAttentionMixer::visible(int64_t length) const {
  return config_.window > 0 ? std::min(length, config_.window - 1) : length;
}

void SoftmaxAttentionMixer::trim(MixerState& state) const {
  const int64_t keep = visible(state.length);
  const int64_t dropped = state.length - keep;
  if (dropped == 0) return;
  if (state.keys.dim(1) == state.length) {
    state.keys = last(state.keys, keep);
    state.values = last(state.values, keep);
  } else {
    state.keys = with_capacity(state.keys.value, dropped, state.length, keep);
    state.values = with_capacity(state.values.value, dropped, state.length, keep);
  }
  state.length = keep;
}

MixerState SoftmaxAttentionMixer::initial_state(int64_t batch) const {
  MixerState state;
  state.position = Tensor::zeros({batch}, DType::I32, device_);
  return state;
}

MixerState SoftmaxAttentionMixer::state_after(int64_t batch, int64_t tokens) const {
  MixerState state = initial_state(batch);
  if (tokens == 0) return state;
  state.length = visible(tokens);
  state.keys = Tensor::empty({batch, state.length, heads_, K_}, dtype_, device_);
  state.values = Tensor::empty({batch, state.length, heads_, V_}, dtype_, device_);
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
