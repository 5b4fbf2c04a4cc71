#include "layers/mixers/softmax_attention.h"

#include <algorithm>

#include "layers/feature_maps.h"

namespace regla {
namespace {

/// Entries [begin, end) of a cache [B, capacity, H, N], copied to `at` of another.
void copy_entries(const Tensor& from, int64_t begin, int64_t end, Tensor to, int64_t at) {
  const int64_t row = from.dim(2) * from.dim(3);
  for (int64_t b = 0; b < from.dim(0) && begin < end; ++b) {
    const Tensor source = from.slice(b, b + 1).reshape({from.dim(1), row}).slice(begin, end);
    to.slice(b, b + 1).reshape({to.dim(1), row}).slice(at, at + end - begin).copy_from(source);
  }
}

Tensor with_capacity(const Tensor& cache, int64_t begin, int64_t end, int64_t capacity) {
  Tensor larger = Tensor::empty({cache.dim(0), capacity, cache.dim(2), cache.dim(3)}, cache.dtype(),
                                cache.device());
  copy_entries(cache, begin, end, larger, 0);
  return larger;
}

/// The first visible cache entry of each token [B, T], undefined where nothing is hidden. `past`
/// entries lie before the segment; `first` [B] moves on.
Tensor first_visible(int64_t batch, int64_t steps, int64_t past, const Tensor& reset,
                     Tensor* first) {
  const bool carries = first && first->defined();
  if (!reset && !carries) return {};
  Tensor visible = Tensor::empty({batch, steps}, DType::I32);
  Tensor after = Tensor::empty({batch}, DType::I32);
  const int32_t* resets = reset ? reset.data<int32_t>() : nullptr;
  for (int64_t b = 0; b < batch; ++b) {
    int32_t from = carries ? first->data<int32_t>()[b] : 0;
    for (int64_t t = 0; t < steps; ++t) {
      if (resets && resets[b * steps + t] != 0) from = static_cast<int32_t>(past + t);
      visible.data<int32_t>()[b * steps + t] = from;
    }
    after.data<int32_t>()[b] = from;
  }
  if (first) *first = after;
  return visible;
}

}  // namespace

SoftmaxAttentionMixer::SoftmaxAttentionMixer(const MixerConfig& config, const MixerSizes& sizes,
                                             const ParameterFactory& make, const std::string& name)
    : config_(config),
      heads_(sizes.heads),
      K_(config.feature_dim > 0 ? config.feature_dim : sizes.hidden / sizes.heads),
      V_(sizes.hidden / sizes.heads),
      dtype_(make.dtype()),
      project_(config, sizes, K_, make, name),
      output_(make, name + ".output", heads_ * V_, sizes.hidden, sizes.output_deviation) {}

Var SoftmaxAttentionMixer::chunked(const Var& x, const Segment& segment, MixerState* state) {
  const int64_t past = state ? state->length : 0;
  HeadProjections::Result in = project_(x, segment, state);
  const Tensor first =
      first_visible(x.dim(0), x.dim(1), past, segment.reset, state ? &state->first : nullptr);
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
  copy_entries(in.k.value, 0, 1, state.keys.value, state.length);
  copy_entries(in.v.value, 0, 1, state.values.value, state.length);
  ++state.length;
  const Tensor first = first_visible(x.dim(0), 1, state.length - 1, {}, &state.first);
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
  if (!state.first) return;
  Tensor moved = state.first.clone();
  for (int64_t b = 0; b < moved.numel(); ++b) {
    moved.data<int32_t>()[b] =
        std::max<int32_t>(0, moved.data<int32_t>()[b] - static_cast<int32_t>(dropped));
  }
  state.first = moved;
}

MixerState SoftmaxAttentionMixer::initial_state(int64_t batch) const {
  MixerState state;
  state.position = Tensor::zeros({batch}, DType::I32);
  return state;
}

MixerState SoftmaxAttentionMixer::state_after(int64_t batch, int64_t tokens, bool resets) const {
  MixerState state = initial_state(batch);
  if (tokens == 0) return state;
  state.length = visible(tokens);
  state.keys = Tensor::empty({batch, state.length, heads_, K_}, dtype_);
  state.values = Tensor::empty({batch, state.length, heads_, V_}, dtype_);
  if (resets) state.first = Tensor::zeros({batch}, DType::I32);
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
