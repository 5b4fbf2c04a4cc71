#include "training/distillation.h"

#include <algorithm>
#include <utility>

namespace regla {
namespace {

/// The layers whose mixer is not the teacher's.
std::vector<int64_t> replaced_layers(const ModelConfig& teacher, const ModelConfig& student) {
  std::vector<int64_t> layers;
  for (int64_t layer = 0; layer < student.layers; ++layer) {
    if (!(teacher.mixer_of(layer) == student.mixer_of(layer))) layers.push_back(layer);
  }
  return layers;
}

/// What a mixer reads and what it gives for that, [B, T, D].
struct MixerPass {
  Tensor in, out;
};

/// Those of every layer of a decoder, which starts from nothing.
std::vector<MixerPass> mixer_passes(Decoder& decoder, const BatchTensors& tokens) {
  std::vector<MixerPass> passes(decoder.blocks().size());
  const Observer observer = [&](int64_t layer, std::string_view name, const Tensor& value) {
    MixerPass& pass = passes[static_cast<size_t>(layer)];
    if (name == "mixer_input") pass.in = value;
    if (name == "mixer_output") pass.out = value;
  };
  const NoGrad guard;
  decoder.hidden(tokens.ids, {.reset = tokens.reset, .observer = &observer});
  return passes;
}

void check_mixers_differ(const std::string& run, const ModelConfig& of_teacher,
                         const ModelConfig& student) {
  ModelConfig other = of_teacher;
  other.mixer = student.mixer;
  other.dropout = student.dropout;
  other.sequence_length = student.sequence_length;
  check(other == student, "[train] the teacher ", run,
        " differs from the model in more than its mixers: its outputs cannot be matched");
  check(!replaced_layers(of_teacher, student).empty(), "[train] the teacher ", run,
        " has the mixers of the model: there is nothing to match");
}

}  // namespace

Teacher load_teacher(const std::string& run, const Model& student,
                     const std::vector<Stage>& stages) {
  Model model = load_model(run, student.decoder->device(), student.config.precision);
  check(model.tokenizer->to_json() == student.tokenizer->to_json() &&
            model.config.model.vocab == student.config.model.vocab,
        "[train] the teacher ", run, " has another tokenizer than the model");
  const bool matches = std::any_of(stages.begin(), stages.end(), [](const Stage& stage) {
    return stage.objective == StageObjective::Match;
  });
  if (matches) check_mixers_differ(run, model.decoder->config(), student.decoder->config());
  return std::move(model.decoder);
}

Objective match_objective(Teacher teacher, const ModelConfig& student) {
  const std::vector<int64_t> layers = replaced_layers(teacher->config(), student);
  const auto evaluate = [=](Decoder& decoder, const MicroBatch& part) -> Objective::Outcome {
    const BatchTensors& tokens = part.tokens;
    std::vector<MixerPass> wanted = mixer_passes(*teacher, tokens);
    const double share = static_cast<double>(tokens.ids.numel()) / static_cast<double>(part.count);
    Tensor from_zero;
    Segment segment = {.reset = tokens.reset};
    segment.positions = segment_positions(tokens.ids.dim(0), tokens.ids.dim(1), tokens.reset,
                                          from_zero, decoder.device());
    Objective::Outcome outcome;
    for (const int64_t layer : layers) {
      const Block& block = decoder.blocks()[static_cast<size_t>(layer)];
      const MixerPass pass = std::exchange(wanted[static_cast<size_t>(layer)], {});
      const Scope scope(block.name + ".mixer");
      const Var error = relative_error(block.mixer->chunked(pass.in, segment, nullptr), pass.out);
      outcome.numbers.push_back(scale(error.value, share).value);
      outcome.loss = outcome.loss.defined() ? add(outcome.loss, error) : error;
    }
    outcome.loss = scale(outcome.loss, share / static_cast<double>(layers.size()));
    return outcome;
  };
  const auto flops = [=](const Decoder& decoder, int64_t length) {
    double all = forward_flops_per_token(*teacher, length);
    const std::vector<MixerSize> mixers = mixers_by_layer(decoder, length);
    for (const int64_t layer : layers) {
      all += 3 * mixers[static_cast<size_t>(layer)].forward_flops_per_token;
    }
    return all;
  };
  Objective objective = {.name = "match", .evaluate = evaluate, .flops_per_token = flops};
  for (const int64_t layer : layers) objective.numbers.push_back("match." + std::to_string(layer));
  return objective;
}

Objective distil_objective(Teacher teacher, double temperature) {
  const auto evaluate = [=](Decoder& decoder, const MicroBatch& part) -> Objective::Outcome {
    const BatchTensors& tokens = part.tokens;
    Tensor wanted;
    {
      const NoGrad guard;
      wanted = teacher->hidden(tokens.ids, {.reset = tokens.reset}).value;
    }
    const Var hidden =
        decoder.hidden(tokens.ids, {.reset = tokens.reset}, part.state, part.dropout);
    return {decoder.divergence(hidden, *teacher, wanted, tokens.targets, temperature, part.count),
            {}};
  };
  const auto flops = [=](const Decoder& decoder, int64_t length) {
    return forward_flops_per_token(*teacher, length) + training_flops_per_token(decoder, length);
  };
  return {.name = "distil", .evaluate = evaluate, .flops_per_token = flops};
}

Objective objective_of(const Stage& stage, const Teacher& teacher) {
  switch (stage.objective) {
    case StageObjective::Match:
      return match_objective(teacher, stage.config.model);
    case StageObjective::Distil:
      return distil_objective(teacher, stage.temperature);
    default:
      return next_token_objective();
  }
}

}  // namespace regla
