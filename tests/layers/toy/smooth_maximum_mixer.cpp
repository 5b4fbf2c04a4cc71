#include "tests/layers/toy/smooth_maximum_mixer.h"

#include "tests/layers/toy/smooth_maximum.h"

namespace regla::test {

using recurrence::SmoothMaximum;

SmoothMaximumMixer::SmoothMaximumMixer(const MixerSizes& sizes, const ParameterFactory& make,
                                       const std::string& name)
    : heads_(sizes.heads),
      size_(sizes.hidden / sizes.heads),
      sums_(make.sums()),
      device_(make.device()),
      query_(make, name + ".query", sizes.hidden, sizes.hidden, sizes.deviation),
      key_(make, name + ".key", sizes.hidden, sizes.hidden, sizes.deviation),
      value_(make, name + ".value", sizes.hidden, sizes.hidden, sizes.deviation),
      gate_(make, name + ".gate", sizes.hidden, heads_, sizes.deviation),
      output_(make, name + ".output", sizes.hidden, sizes.hidden, sizes.output_deviation) {}

CellInputs SmoothMaximumMixer::prepare(const Var& x) {
  const auto heads = [&](const Var& z) { return reshape(z, {x.dim(0), x.dim(1), heads_, size_}); };
  return {.keys = {heads(query_(x)), heads(key_(x))},
          .values = {heads(value_(x))},
          .scalars = {log_sigmoid(gate_(x, sums_))}};
}

Var SmoothMaximumMixer::chunked(const Var& x, const Segment& segment, MixerState* state) {
  const Recurrence result =
      run_cell<SmoothMaximum>(prepare(x), segment.reset, state ? state->S : Var{});
  if (state) state->S = result.state;
  return output_(reshape(result.o, x.shape()));
}

Tensor SmoothMaximumMixer::step(const Token& token, const Tensor&, MixerState& state) {
  const Var x = token.read().reshape({token.x.dim(0), 1, token.x.dim(1)});
  const Tensor o = run_cell_step<SmoothMaximum>(prepare(x), state.S.value);
  return token.added(output_(o.reshape(x.shape())).value.reshape(token.x.shape()));
}

MixerState SmoothMaximumMixer::initial_state(int64_t batch) const {
  MixerState state;
  state.S = Tensor::zeros({batch, heads_, size_, size_}, sums_, device_);
  return state;
}

void SmoothMaximumMixer::parameters(ParameterList& list) {
  for (Linear* linear : {&query_, &key_, &value_, &gate_, &output_}) linear->parameters(list);
}

double SmoothMaximumMixer::flops_per_token(int64_t) const {
  return 7.0 * static_cast<double>(heads_ * size_ * size_);
}

int64_t SmoothMaximumMixer::state_bytes(int64_t, DType dtype) const {
  return heads_ * size_ * size_ * static_cast<int64_t>(size_of(sum_type(dtype)));
}

}  // namespace regla::test
