#include "models/decoder.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "autograd/recompute.h"
#include "backends/copies.h"
#include "backends/kernels.h"
#include "core/memory.h"

namespace regla {
namespace {

// Small init (Nguyen and Salazar 2019) and Wang's 2/(L sqrt(D)) for what is added to the residual,
// as Pythia does.
double small_deviation(const ModelConfig& c) {
  return std::sqrt(2.0 / (5.0 * static_cast<double>(c.hidden)));
}
double output_deviation(const ModelConfig& c) {
  return 2.0 / (static_cast<double>(c.layers) * std::sqrt(static_cast<double>(c.hidden)));
}

std::string layer_name(int64_t layer) { return "layers." + std::to_string(layer); }

/// The configuration once it is known to be sound; members are built from it right away.
const ModelConfig& validated(const ModelConfig& config) {
  config.validate();
  check(config.vocab > 0, "[decoder] expected a vocabulary size, got ", config.vocab);
  return config;
}

/// Masks that a block draws, one for each addition to the residual.
constexpr int64_t kDropouts = 2;

/// x with what is to be added to it, with dropout on that in training.
Var added(const Residual& x, DropoutSource* dropout) {
  if (!x.branch.defined()) return x.sum;
  return dropout ? dropout->added(x.sum, x.branch) : add(x.sum, x.branch);
}

/// The same and its norm: one op, which keeps the norm for backward, unless the tape wants to
/// compute it again.
SumAndNorm added_and_normed(const Residual& x, LayerNorm& norm, DropoutSource* dropout) {
  if (!Tape::keeps_cheap() || !x.branch.defined()) {
    const Var sum = added(x, dropout);
    return {sum, norm(sum)};
  }
  DropoutSource none;
  return (dropout ? *dropout : none).added_and_normed(x.sum, x.branch, norm);
}

}  // namespace

Block::Block(const ModelConfig& c, int64_t layer, const ParameterFactory& make)
    : name(layer_name(layer)),
      norm1(make, name + ".norm1", c.hidden, c.layer_norm_epsilon),
      mixer(make_mixer(c.mixer_of(layer),
                       {c.hidden, c.heads, small_deviation(c), output_deviation(c)}, make,
                       name + ".mixer")),
      norm2(make, name + ".norm2", c.hidden, c.layer_norm_epsilon),
      mlp(make, name + ".mlp", c.hidden, c.mlp_width(), c.gelu, small_deviation(c),
          output_deviation(c)),
      parallel_residual(c.parallel_residual) {}

Residual Block::chunked(Residual x, const Segment& segment, MixerState* state,
                        DropoutSource* dropout) {
  {
    Scope scope(name + ".mixer");
    const SumAndNorm in = added_and_normed(x, norm1, dropout);
    x = {in.sum, {}};
    if (!is_without_mixer) x.branch = mixer->chunked(in.norm, segment, state);
    segment.show("mixer_input", in.norm);
    segment.show("mixer_output", x.branch);
  }
  Scope scope(name + ".mlp");
  if (parallel_residual) {
    const Var normed = norm2(x.sum);
    return {added(x, dropout), mlp(normed)};
  }
  const SumAndNorm mixed = added_and_normed(x, norm2, dropout);
  x = {};
  return {mixed.sum, mlp(mixed.norm)};
}

Var Block::recomputed(const Var& x, const Segment& segment, MixerState* state,
                      DropoutSource* dropout) {
  const bool carries = state != nullptr, drops = dropout != nullptr;
  const int64_t length = carries ? state->length : 0;
  const DropoutSource masks = drops ? *dropout : DropoutSource();
  const auto block = [=, this](const Vars& in) {
    MixerState inner = MixerState::of(std::span(in).subspan(1), length);
    DropoutSource draws = masks;  // from the same place in every run
    DropoutSource* from = drops ? &draws : nullptr;
    const Var y = added(chunked({in[0], {}}, segment, carries ? &inner : nullptr, from), from);
    Vars out = inner.list();
    out.insert(out.begin(), y);
    return out;
  };
  Vars in = carries ? state->list() : MixerState{}.list();
  in.insert(in.begin(), x);
  const Vars out = recompute(block, in);
  if (dropout) dropout->skip(kDropouts);
  if (carries) {
    const Var& keys = out[3];
    *state = MixerState::of(std::span(out).subspan(1), keys.defined() ? keys.dim(1) : 0);
  }
  return out[0];
}

Tensor Block::step(const Tensor& x, const Tensor& positions, MixerState& state) {
  const Tensor mixed = is_without_mixer ? x : mixer->step({x, &norm1, x}, positions, state);
  return mlp.step({parallel_residual ? x : mixed, &norm2, mixed});
}

void Block::parameters(ParameterList& list) {
  norm1.parameters(list);
  mixer->parameters(list);
  norm2.parameters(list);
  mlp.parameters(list);
}

Decoder::Decoder(const ModelConfig& config, const ParameterFactory& make)
    : config_(validated(config).resolved()),
      dtype_(make.dtype()),
      device_(make.device()),
      embedding_(make, "embed_in", config_.vocab, config_.hidden, small_deviation(config_)),
      final_norm_(make, "final_norm", config_.hidden, config_.layer_norm_epsilon) {
  // Without room for all in advance: `make` may not have so many.
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    blocks_.emplace_back(config_, layer, make);
  }
  if (!config_.tie_embeddings) {
    output_ = make.normal("embed_out.weight", {config_.vocab, config_.hidden}, Role::Matrix,
                          small_deviation(config_));
  }
  output_weight().keep_copy(dtype_);
  embedding_.parameters(parameters_);
  for (Block& block : blocks_) block.parameters(parameters_);
  final_norm_.parameters(parameters_);
  if (output_) parameters_.push_back(&*output_);
}

Tensor Decoder::ids(const Shape& shape, const std::vector<int32_t>& ids) const {
  check_ids(ids);
  return Tensor::of(shape, ids, device_);
}

void Decoder::check_ids(const std::vector<int32_t>& ids) const {
  check(std::all_of(ids.begin(), ids.end(),
                    [&](int32_t id) { return id >= 0 && id < config_.vocab; }),
        "[decoder] expected ids from 0 to ", config_.vocab - 1, ", got one outside that range");
}

Var Decoder::hidden(const Tensor& ids, Segment segment, DecoderState* state,
                    DropoutSource* dropout) {
  check(ids.rank() == 2 && ids.numel() > 0, "[decoder] expected ids [B, T], got ", ids.shape());
  const int64_t B = ids.dim(0), steps = ids.dim(1);
  if (state) check_state(*state, B);
  Tensor from_zero;
  segment.positions =
      segment_positions(B, steps, segment.reset, state ? state->position : from_zero, ids.device());
  Residual x;
  {
    Scope scope("embed_in");
    x.sum = embedding_(ids);
    if (dropout) x.sum = (*dropout)(x.sum);
  }
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    segment.layer = static_cast<int64_t>(layer);
    Block& block = blocks_[layer];
    MixerState* carried = state ? &state->layers[layer] : nullptr;
    if (recompute_blocks_) {
      x.sum = block.recomputed(x.sum, segment, carried, dropout);
    } else {
      x = block.chunked(std::move(x), segment, carried, dropout);
    }
  }
  Scope scope("final_norm");
  return added_and_normed(x, final_norm_, dropout).norm;
}

Var Decoder::loss(const Var& hidden, const Tensor& targets, int64_t count) {
  Scope scope("embed_out");
  return cross_entropy(hidden, use(output_weight()), targets, count);
}

Tensor Decoder::losses(const Var& hidden, const Tensor& targets) {
  return cross_entropy_rows(hidden.value, output_weight().factor(), targets);
}

Var Decoder::divergence(const Var& hidden, Decoder& teacher, const Tensor& teacher_hidden,
                        const Tensor& targets, double temperature, int64_t count) {
  Scope scope("embed_out");
  return distillation(hidden, use(output_weight()), teacher_hidden,
                      teacher.output_weight().factor(), targets, temperature, count);
}

Var Decoder::logits(const Var& hidden) {
  return linear(hidden, use(output_weight()), {}, sum_type(dtype_));
}

Tensor Decoder::step(const Tensor& ids, DecoderState& state) {
  check(ids.rank() == 1, "[decoder] expected ids [B], got ", ids.shape());
  const int64_t B = ids.dim(0);
  check_state(state, B);
  const Tensor positions = Tensor::empty({B, 1}, DType::I32, ids.device());
  kernels(ids.device()).positions(state.position, {}, positions, state.position);
  Tensor x = embedding_(ids).value;
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    x = blocks_[layer].step(x, positions, state.layers[layer]);
  }
  const StepNorm norm = {use(final_norm_.weight), use(final_norm_.bias), final_norm_.epsilon};
  return linear_step(x, norm, {{use(output_weight()), {}, sum_type(dtype_)}}, dtype_)[0];
}

void Decoder::reserve(DecoderState& state, int64_t tokens) const {
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    blocks_[layer].mixer->reserve(state.layers[layer], state.position.dim(0), tokens);
  }
}

int64_t Decoder::steps_ahead(const DecoderState& state) const {
  int64_t steps = std::numeric_limits<int64_t>::max();
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    steps = std::min(steps, blocks_[layer].mixer->steps_ahead(state.layers[layer]));
  }
  return steps;
}

void Decoder::check_state(const DecoderState& state, int64_t batch) const {
  check(state.layers.size() == blocks_.size(), "[decoder] expected a state for each of the ",
        blocks_.size(), " layers, got ", state.layers.size());
  check(state.position.shape() == Shape{batch}, "[decoder] expected a state of ", batch,
        " sequences, got ", state.position.shape());
}

int64_t Decoder::leave_out_mixers(MixerType type) {
  int64_t count = 0;
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    if (config_.mixer_of(static_cast<int64_t>(layer)).type != type) continue;
    blocks_[layer].is_without_mixer = true;
    ++count;
  }
  return count;
}

void Decoder::begin_step(int64_t updates_done) {
  for (Block& block : blocks_) block.mixer->begin_step(updates_done);
}

void Decoder::store_weights(DType dtype) {
  check((dtype_ == DType::F32 && dtype == DType::F32) ||
            (dtype_ != DType::F64 && dtype == DType::BF16),
        "[decoder] weights can be stored in F32 beside activations in F32, or in BF16 beside those "
        "in F32 or BF16, got ",
        name_of(dtype), " beside ", name_of(dtype_));
  for (Parameter* parameter : parameters_) {
    const bool is_wide = parameter->role == Role::Matrix || parameter == &output_weight();
    // Beside its copy a bias stays as it is for products of that type.
    if ((!parameter->copy && !is_wide) || parameter->role == Role::Bias) continue;
    parameter->keep_copy(dtype);
    if (parameter->copy) parameter->value = std::exchange(parameter->copy, {});
  }
  // What the weights took before goes back to the system.
  memory(device_).trim();
}

DecoderState Decoder::initial_state(int64_t batch) const {
  DecoderState state;
  for (const Block& block : blocks_) state.layers.push_back(block.mixer->initial_state(batch));
  state.position = Tensor::zeros({batch}, DType::I32, device_);
  return state;
}

DecoderState Decoder::initial_carried_state(int64_t batch) const {
  DecoderState state = initial_state(batch);
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    state.layers[layer] = blocks_[layer].mixer->initial_carried_state(batch);
  }
  return state;
}

}  // namespace regla
