#include "tests/layers/toy/moving_average_mixer.h"

#include "tests/layers/toy/moving_average_op.h"

namespace regla::test {

MovingAverageMixer::MovingAverageMixer(const MixerSizes& sizes, const ParameterFactory& make,
                                       const std::string& name)
    : heads_(sizes.heads),
      V_(sizes.hidden / sizes.heads),
      sums_(make.sums()),
      device_(make.device()),
      value_(make, name + ".value", sizes.hidden, sizes.hidden, sizes.deviation),
      decay_(make.constant(name + ".decay", {heads_}, 2)),
      output_(make, name + ".output", sizes.hidden, sizes.hidden, sizes.output_deviation) {}

Var MovingAverageMixer::chunked(const Var& x, const Segment& segment, MixerState* state) {
  const Var v = reshape(value_(x), {x.dim(0), x.dim(1), heads_, V_});
  const Var before = state ? state->S : initial_state(x.dim(0)).S;
  const MovingAverage average = moving_average(v, sigmoid(use(decay_)), segment.reset, before);
  if (state) state->S = average.state;
  return output_(reshape(average.o, x.shape()));
}

Tensor MovingAverageMixer::step(const Token& token, const Tensor&, MixerState& state) {
  MixerState after = state;
  const Var y = chunked(token.read().reshape({token.x.dim(0), 1, token.x.dim(1)}), {}, &after);
  state.S.value.copy_from(after.S.value);
  return token.added(y.value.reshape(token.x.shape()));
}

MixerState MovingAverageMixer::initial_state(int64_t batch) const {
  MixerState state;
  state.S = Tensor::zeros({batch, heads_, 1, V_}, sums_, device_);
  return state;
}

void MovingAverageMixer::parameters(ParameterList& list) {
  value_.parameters(list);
  list.push_back(&decay_);
  output_.parameters(list);
}

double MovingAverageMixer::flops_per_token(int64_t) const {
  return 3.0 * static_cast<double>(heads_ * V_);
}

int64_t MovingAverageMixer::state_bytes(int64_t, DType dtype) const {
  return heads_ * V_ * static_cast<int64_t>(size_of(sum_type(dtype)));
}

}  // namespace regla::test
