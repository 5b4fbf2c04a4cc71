#include "training/distillation.h"

#include <cmath>
#include <memory>

#include "models/linearisation.h"
#include "storage/files.h"
#include "tests/error_of.h"
#include "tests/gpu.h"
#include "tests/matchers.h"
#include "tests/support.h"
#include "tests/temporary_folder.h"
#include "tests/training/support.h"
#include "tests/walled_device.h"
#include "text/byte_tokenizer.h"
#include "training/run_folder.h"
#include "training/training_loop.h"

namespace regla::test {
namespace {

const char* const kStages = R"([{"objective": "match", "steps": 3},
    {"objective": "distil", "steps": 4, "learning_rate": 0.004, "batch_size": 2,
     "sequence_length": 12, "temperature": 2, "schedule": "cosine"}])";

/// Softmax attention in every layer but 1, where the student's mixer is.
TrainingConfig student_config(Precision precision = Precision::F64, int64_t layers = 3) {
  std::string mixers = R"("softmax", {"type": "regla", "rope": "full", "gate_bias": 4,
                               "norm_epsilon": 1e-3})";
  for (int64_t i = 2; i < layers; ++i) mixers += R"(, "softmax")";
  TrainingConfig config = small_config("[" + mixers + "]", layers);
  config.precision = precision;
  config.tokenizer = "byte";
  config.model.vocab = 0;
  config.model.dropout = 0.1;
  config.micro_batches = 2;
  config.reset_at_documents = true;
  config.epsilon = 1e-3;  // so that an update is a smooth function of the gradient
  return config;
}

TrainingConfig teacher_config(Precision precision = Precision::F64, int64_t layers = 3) {
  TrainingConfig config = student_config(precision, layers);
  config.model.mixer = {preset(MixerType::Softmax)};
  config.seed = 4;
  return config;
}

/// A student that keeps the teacher's weights, and what it learns from.
struct Pair {
  Model student;
  Teacher teacher;
  TokenStream text = small_text(400);

  explicit Pair(Precision precision = Precision::F64, Device device = {}, int64_t layers = 3) {
    Model trained = make_model(teacher_config(precision, layers), byte_tokenizer(), device);
    // The first weights of a decoder are so small that its distributions are nearly flat.
    for (Parameter* parameter : trained.decoder->parameters()) {
      if (parameter->role == Role::Vector) continue;
      kernels(device).accumulate(parameter->value.clone(), 2, Sink{parameter->value, true});
      if (parameter->copy) parameter->keep_copy(trained.decoder->dtype());
    }
    const TrainingConfig config = student_config(precision, layers);
    Linearisation plan = {.mixer = config.model.mixer[1],
                          .layers = {1},
                          .keep_projections = true,
                          .keep_rotation = true};
    LinearisationReport report;
    auto decoder = linearised(*trained.decoder, plan, 5, report);
    for (Parameter* parameter : decoder->parameters()) {  // some shared with the teacher
      parameter->value = parameter->value.clone();
      if (parameter->copy) parameter->copy = parameter->copy.clone();
    }
    student = model_of(config, byte_tokenizer(), std::move(decoder));
    teacher = std::move(trained.decoder);
  }

  Trainer trainer(Objective objective, Done done = {}) {
    return Trainer(student.config, *student.decoder, text, kEnd, std::move(objective), done);
  }
  Objective match() { return match_objective(teacher, student.config.model); }
};

std::vector<double> all_logits(Decoder& decoder, const Tensor& ids) {
  return decoder.logits(decoder.hidden(ids)).value.values();
}

/// Probabilities of a row of scores over a temperature.
std::vector<double> probabilities(const std::vector<double>& scores, size_t row, size_t vocab,
                                  double temperature) {
  std::vector<double> p(vocab);
  double sum = 0;
  for (size_t j = 0; j < vocab; ++j) sum += p[j] = std::exp(scores[row * vocab + j] / temperature);
  for (double& x : p) x /= sum;
  return p;
}

Tensors weights_of(const Decoder& decoder) {
  Tensors weights;
  for (const Parameter* parameter : decoder.parameters())
    weights.push_back(parameter->value.clone());
  return weights;
}

}  // namespace

TEST_CASE("a match tells the error of each replaced mixer beside the teacher's") {
  Pair pair;
  TrainingConfig& config = pair.student.config;
  config.micro_batches = 1;
  config.reset_at_documents = false;
  config.learning_rate = 0;
  Trainer trainer = pair.trainer(pair.match());
  const StepResult told = one_step(trainer);
  REQUIRE(told.numbers.size() == 1);  // of the one layer
  CHECK(trainer.objective().numbers == std::vector<std::string>{"match.1"});
  CHECK(told.loss == told.numbers[0]);

  // By what both say of themselves: up to layer 1 they are the same decoder.
  const Batch batch = Batches(pair.text.ids(), 4, 8, kEnd).at(0);
  const Tensor ids = Tensor::of({4, 8}, batch.inputs);
  const auto output_of = [&](Decoder& decoder) {
    Tensor output;
    const Observer observer = [&](int64_t layer, std::string_view name, const Tensor& value) {
      if (layer == 1 && name == "mixer_output") output = value;
    };
    decoder.hidden(ids, {.observer = &observer});
    return output.values();
  };
  const std::vector<double> y = output_of(*pair.student.decoder), t = output_of(*pair.teacher);
  double difference = 0, square = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    difference += (y[i] - t[i]) * (y[i] - t[i]);
    square += t[i] * t[i];
  }
  CHECK(difference > 0.01 * square);
  CHECK(told.loss == Approx(difference / square).epsilon(1e-12));
}

TEST_CASE("a match moves the replaced mixers alone, and towards the teacher's") {
  Pair pair;
  const Tensors before = weights_of(*pair.student.decoder), taught = weights_of(*pair.teacher);
  Trainer trainer = pair.trainer(pair.match());
  const double first = one_step(trainer).loss;
  double last = 0;
  for (int i = 0; i < 60; ++i) last = one_step(trainer).loss;
  CHECK(last < 0.5 * first);
  const ParameterList& parameters = pair.student.decoder->parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    INFO(parameters[i]->name);
    const bool is_replaced = parameters[i]->name.starts_with("layers.1.mixer.");
    CHECK(same_bits(parameters[i]->value, before[i]) == !is_replaced);
  }
  for (size_t i = 0; i < taught.size(); ++i) {
    CHECK(same_bits(pair.teacher->parameters()[i]->value, taught[i]));
  }
}

TEST_CASE("every replaced layer reads what the teacher's mixer there reads") {
  // Two layers replaced: what layer 0 of the student gives must not reach its layer 1.
  Model trained = make_model(teacher_config(), byte_tokenizer());
  LinearisationReport report;
  const auto errors = [&](const std::vector<int64_t>& layers) {
    Linearisation plan = {.mixer = preset(MixerType::Regla), .layers = layers};
    Model student =
        model_of(student_config(), byte_tokenizer(), linearised(*trained.decoder, plan, 5, report));
    const TokenStream text = small_text(400);
    const Teacher teacher(trained.decoder.get(), [](Decoder*) {});
    Trainer trainer(student.config, *student.decoder, text, kEnd,
                    match_objective(teacher, student.config.model));
    const StepResult told = one_step(trainer);
    double mean = 0;
    for (const double error : told.numbers) mean += error / static_cast<double>(layers.size());
    CHECK(told.loss == Approx(mean).epsilon(1e-12));
    return told.numbers;
  };
  const std::vector<double> both = errors({0, 1});
  REQUIRE(both.size() == 2);
  CHECK(both[0] == errors({0})[0]);
  CHECK(both[1] == errors({1})[0]);
}

TEST_CASE("distillation is the divergence of the distributions of the next token") {
  for (const double temperature : {1.0, 3.0}) {
    INFO(temperature);
    Pair pair;
    TrainingConfig& config = pair.student.config;
    config.model.dropout = 0;
    config.reset_at_documents = false;
    Trainer trainer = pair.trainer(distil_objective(pair.teacher, temperature));
    const Batch batch = Batches(pair.text.ids(), 4, 8, kEnd).at(0);
    const Tensor ids = Tensor::of({4, 8}, batch.inputs);
    const std::vector<double> s = all_logits(*pair.student.decoder, ids),
                              t = all_logits(*pair.teacher, ids);
    const size_t vocab = s.size() / 32;
    double mean = 0;
    for (size_t row = 0; row < 32; ++row) {
      const std::vector<double> q = probabilities(s, row, vocab, temperature),
                                p = probabilities(t, row, vocab, temperature);
      for (size_t j = 0; j < vocab; ++j) mean += p[j] * std::log(p[j] / q[j]) / 32;
    }
    CHECK(mean > 1e-4);
    const double first = one_step(trainer).loss;
    CHECK(first == Approx(temperature * temperature * mean).epsilon(1e-9));
    double last = 0;
    for (int i = 0; i < 150; ++i) last = one_step(trainer).loss;
    CHECK(last < 0.7 * first);
  }
}

TEST_CASE("who is its own teacher has nothing to learn") {
  Pair pair;
  pair.student.config.model.dropout = 0;
  const Teacher self(pair.student.decoder.get(), [](Decoder*) {});
  Trainer trainer = pair.trainer(distil_objective(self, 2));
  const StepResult told = one_step(trainer);
  CHECK(std::abs(told.loss) < 1e-12);
  CHECK(told.gradient_norm < 1e-12);
}

TEST_CASE("micro-batches match and distil as one batch does") {
  std::vector<double> losses[2];
  for (const int64_t parts : {1, 4}) {
    Pair pair;
    pair.student.config.micro_batches = parts;
    Trainer trainer = pair.trainer(distil_objective(pair.teacher, 2));
    for (int i = 0; i < 5; ++i) losses[parts > 1].push_back(one_step(trainer).loss);
  }
  for (size_t i = 0; i < losses[0].size(); ++i) {
    CHECK(losses[1][i] == Approx(losses[0][i]).epsilon(1e-10));
  }
  // A match's error is a ratio, of each part: their mean is another number of the same size.
  Pair whole, parts;
  whole.student.config.micro_batches = 1;
  Trainer one = whole.trainer(whole.match()), two = parts.trainer(parts.match());
  CHECK(one_step(one).loss == Approx(one_step(two).loss).epsilon(0.2));
}

TEST_CASE("learning from a teacher behind the wall has the CPU's bits") {
  for (const bool matches : {true, false}) {
    Pair cpu(Precision::Fp32), walled(Precision::Fp32, walled_device());
    const auto objective = [&](Pair& pair) {
      return matches ? pair.match() : distil_objective(pair.teacher, 2);
    };
    Trainer here = cpu.trainer(objective(cpu)), there = walled.trainer(objective(walled));
    for (int i = 0; i < 6; ++i) {
      const StepResult a = one_step(here), b = one_step(there);
      CHECK(a.loss == b.loss);
      CHECK(a.numbers == b.numbers);
      CHECK(a.gradient_norm == b.gradient_norm);
    }
    const WallCounts outside = counts_outside_of_routines();
    for (int i = 0; i < 5; ++i) there.step();
    CHECK(counts_outside_of_routines() - outside == WallCounts{.copies_from_host = 5});
  }
}

TEST_CASE("learning from a teacher on a GPU goes as on the CPU, and again with the same bits",
          "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const Precision precision : {Precision::Fp32, Precision::Bf16}) {
    for (const bool matches : {true, false}) {
      INFO(name_of(precision) << (matches ? ", match" : ", distil"));
      const auto losses = [&](Device where) {
        Pair pair(precision, where);
        Trainer trainer = pair.trainer(matches ? pair.match() : distil_objective(pair.teacher, 2));
        for (int i = 0; i < 8; ++i) trainer.step();
        std::vector<double> all;
        for (const StepResult& result : trainer.finish()) all.push_back(result.loss);
        return all;
      };
      const std::vector<double> cpu = losses({}), there = losses(*device);
      REQUIRE(there.size() == 8);
      for (size_t i = 0; i < cpu.size(); ++i) {
        CHECK(std::abs(there[i] / cpu[i] - 1) < (precision == Precision::Fp32 ? 1e-4 : 3e-2));
      }
      CHECK(there.back() < there.front());
      CHECK(losses(*device) == there);
    }
  }
}

TEST_CASE("stages follow each other, and what is left is plain training") {
  TrainingConfig config = student_config();
  config.teacher = "t";
  config.steps = 20;
  config.carry_state = false;
  config = from_json(apply_override(config.to_json(), std::string("stages=") + kStages));
  std::vector<Stage> stages = stages_of(config.resolved());
  REQUIRE(stages.size() == 3);
  CHECK(stages[0].objective == StageObjective::Match);
  CHECK(stages[0].end == 3);
  CHECK(stages[0].config.learning_rate == 1e-3);
  CHECK(stages[0].config.batch_size == 4);
  CHECK(stages[1].begin == 3);
  CHECK(stages[1].end == 7);
  CHECK(stages[1].tokens == 3 * 4 * 8);
  CHECK(stages[1].temperature == 2);
  CHECK(stages[1].config.model.sequence_length == 12);
  CHECK(stages[1].config.steps == 4);
  CHECK(stages[2].begin == 7);
  CHECK(stages[2].tokens == 3 * 4 * 8 + 4 * 2 * 12);
  CHECK(stages[2].config.learning_rate == config.learning_rate);
  CHECK(stages[2].config.steps == 13);
  CHECK(stages[2].config.stages.empty());
  for (const auto& [step, at] : {std::pair<int64_t, size_t>{0, 0},
                                 {1, 0},
                                 {3, 0},
                                 {4, 1},
                                 {7, 1},
                                 {8, 2},
                                 {20, 2},
                                 {99, 2}}) {
    CHECK(stage_at(stages, step) == at);
  }
  config.steps = 5;  // ends within the second, whose rate is bent as it was
  stages = stages_of(config);
  REQUIRE(stages.size() == 2);
  CHECK(stages[1].end == 5);
  CHECK(stages[1].config.steps == 4);
  config.steps = 0;
  CHECK(stages_of(config).size() == 1);
  config.stages.clear();
  config.steps = 20;
  stages = stages_of(config);
  REQUIRE(stages.size() == 1);
  CHECK(stages[0].end == 20);
}

TEST_CASE("a stage with other keys than it can have is refused by the key's name") {
  const auto said = [](const std::string& stages, const std::string& more = "") {
    return error_of([&] { from_json(R"({"teacher": "t", "stages": )" + stages + more + "}"); });
  };
  CHECK(said(R"([{"objective": "match"}])") == "no error");
  CHECK_THAT(said(R"([{"objective": "mach"}])"), Contains("stages.0.objective"));
  CHECK_THAT(said(R"([{"objective": "mach"}])"), Contains("match"));
  CHECK_THAT(said(R"({"objective": "match"})"), Contains("expected a list of objects for stages"));
  CHECK_THAT(said(R"(["match"])"), Contains("stages.0"));
  CHECK_THAT(said(R"([{}, {"step": 4}])"), Contains("stages.1.steps"));
  CHECK_THAT(said(R"([{"steps": 0}])"), Contains("stages.0.steps from 1"));
  CHECK_THAT(said(R"([{"temperature": 0}])"), Contains("stages.0.temperature above 0, got 0"));
  CHECK_THAT(said(R"([{"batch_size": -1}])"), Contains("stages.0.batch_size"));
  CHECK_THAT(said(R"([{"sequence_length": -5}])"), Contains("stages.0.sequence_length"));
  CHECK_THAT(said(R"([{"learning_rate": -1}])"),
             Contains("[config] stages.0: expected learning_rate of at least 0, got -1"));
  CHECK_THAT(said(R"([{"batch_size": 3}])", R"(, "micro_batches": 2, "batch_size": 4)"),
             Contains("[config] stages.0: expected micro_batches to divide batch_size"));
  CHECK_THAT(said(R"([{"steps": 2147483647}, {"steps": 2147483647}])"),
             Contains("stages of at most 2147483647 steps together"));
  CHECK_THAT(said("[" + std::string("{}") +
                  [] {
                    std::string more;
                    for (int i = 0; i < 16; ++i) more += ", {}";
                    return more;
                  }() +
                  "]"),
             Contains("at most 16 stages, got 17"));
  CHECK_THAT(error_of([] { from_json(R"({"stages": [{"objective": "distil"}]})"); }),
             Contains("stages.0 has the objective distil, which needs a teacher"));
  // What is read is written, and read again.
  const TrainingConfig config =
      from_json(R"({"teacher": "t", "stages": )" + std::string(kStages) + "}");
  CHECK(from_json(config.to_json()) == config.resolved());
  CHECK(
      from_json(apply_override(config.to_json(), "stages.1.temperature=4")).stages[1].temperature ==
      4);
}

namespace {

/// A run in stages as the program does it, interrupted after the updates in `stops`.
void train_in_stages(const std::filesystem::path& path, const std::string& teacher,
                     const std::vector<int64_t>& stops) {
  const TokenStream text = small_text(400), valid = small_text(100, 2);
  for (size_t part = 0; part <= stops.size(); ++part) {
    RunFolder run = open_run(path);
    Model model = load_model(path);
    TrainingState state = read_training_state(path);
    const std::vector<Stage> stages = stages_of(model.config);
    const Teacher from = load_teacher(teacher, model, stages);
    const int64_t stop = part < stops.size() ? stops[part] : -1;
    TrainingEvents events;
    events.should_stop = [&] { return state.step == stop; };
    bool goes_on = true;
    for (size_t i = stage_at(stages, state.step); i < stages.size() && goes_on; ++i) {
      const Stage& stage = stages[i];
      Trainer trainer(stage.config, *model.decoder, text, kEnd, objective_of(stage, from),
                      {stage.begin, stage.tokens});
      if (state.is_begun() && state.step > stage.begin) restore_training(path, trainer, state);
      if (!state.is_begun()) state = {.seed = 0, .text = "abc"};
      goes_on = run_training(run, model, trainer, &valid, state, events);
    }
    CHECK(goes_on == (stop < 0));
  }
}

/// Lines about training without what depends on the time.
std::string lines_of(const std::filesystem::path& run) {
  std::string kept;
  const std::string text = read_file(run / "metrics.jsonl");
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    std::string line = text.substr(at, end - at);
    for (const char* key : {"\"tokens_per_s\"", "\"gflops\"", "\"elapsed_s\""}) {
      const size_t begin = line.find(key);
      if (begin == line.npos) continue;
      line.erase(begin, line.find_first_of(",}", begin) - begin);
    }
    kept += line + "\n";
    at = end + 1;
  }
  return kept;
}

}  // namespace

TEST_CASE("a training in stages goes on from any update as if nothing had been") {
  const TemporaryFolder folder;
  const std::string teacher = folder / "teacher";
  create_run_of(teacher, make_model(teacher_config(), byte_tokenizer()));
  const auto begin = [&](const std::string& name) {
    TrainingConfig config = student_config();
    config.teacher = teacher;
    config.steps = 11;
    config.log_every = 1;
    config.eval_every = 4;
    config.checkpoint_every = 0;
    config = from_json(apply_override(config.to_json(), std::string("stages=") + kStages));
    create_run_of(folder / name, make_model(config, byte_tokenizer()));
    return folder / name;
  };
  const std::filesystem::path straight = begin("straight");
  train_in_stages(straight, teacher, {});
  const std::string lines = lines_of(straight);
  CHECK_THAT(lines, Contains("\"objective\":\"match\",\"match.1\":"));
  CHECK_THAT(lines, Contains("\"objective\":\"distil\"}"));
  CHECK(read_training_state(straight).tokens == 3 * 4 * 8 + 4 * 2 * 12 + 4 * 4 * 8);
  // The second stage goes on where the text was read to.
  for (const std::vector<int64_t>& stops :
       std::vector<std::vector<int64_t>>{{1}, {2}, {3}, {4}, {6}, {7}, {8}, {10}, {3, 7, 9}}) {
    INFO("stopped after " << stops[0]);
    const std::filesystem::path broken =
        begin("broken" + std::to_string(stops[0]) + "-" + std::to_string(stops.size()));
    train_in_stages(broken, teacher, stops);
    CHECK(read_file(broken / "model.safetensors") == read_file(straight / "model.safetensors"));
    CHECK(read_file(broken / "optimizer.safetensors") ==
          read_file(straight / "optimizer.safetensors"));
    CHECK(lines_of(broken) == lines);
  }
}

TEST_CASE("a teacher that cannot teach is refused") {
  const TemporaryFolder folder;
  const Pair pair;
  const auto stages = [](StageObjective objective) {
    Stage stage;
    stage.objective = objective;
    return std::vector<Stage>{stage};
  };
  const auto said = [&](const std::string& run, StageObjective objective) {
    return error_of([&] { load_teacher(folder / run, pair.student, stages(objective)); });
  };
  const auto write = [&](const std::string& run, const TrainingConfig& config) {
    create_run_of(folder / run, make_model(config, byte_tokenizer()));
  };
  write("good", teacher_config());
  write("same", student_config());
  TrainingConfig config = teacher_config();
  config.model.hidden = 24;
  write("wide", config);
  config = teacher_config();
  config.model.vocab = 512;
  write("words", config);
  for (const StageObjective objective : {StageObjective::Match, StageObjective::Distil}) {
    CHECK(said("good", objective) == "no error");
    CHECK_THAT(said("nobody", objective), Contains("nobody"));
    CHECK_THAT(said("words", objective), Contains("words has another tokenizer than the model"));
  }
  CHECK_THAT(said("same", StageObjective::Match), Contains("same has the mixers of the model"));
  CHECK(said("same", StageObjective::Distil) == "no error");
  CHECK_THAT(said("wide", StageObjective::Match), Contains("differs from the model in more than"));
  CHECK(said("wide", StageObjective::Distil) == "no error");  // only its distribution is asked for
}

}  // namespace regla::test
