#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <thread>
#include <utility>

#include "app/machine.h"
#include "app/options.h"
#include "app/program.h"
#include "app/train_report.h"
#include "backends/cpu/info.h"
#include "core/hash.h"
#include "core/memory.h"
#include "core/numbers.h"
#include "core/parallel.h"
#include "models/inspection.h"
#include "text/byte_tokenizer.h"
#include "text/corpus.h"
#include "text/token_cache.h"
#include "training/distillation.h"
#include "training/schedule.h"
#include "training/stages.h"
#include "training/training_loop.h"

namespace regla::app {
namespace {

struct TrainArguments {
  std::string config, data, out;
  std::optional<std::string> device;
  std::optional<int64_t> steps;
  bool resume = false;
  std::vector<std::string> set;
};

/// What a request to stop means at the moment: there is nothing to save while a training is
/// prepared, and none after it.
enum class Phase { Preparing, Training, Stopping, Over };
std::atomic<Phase> phase = Phase::Preparing;

/// Ctrl-C, SIGTERM and the end of the terminal, each only where it was not ignored at the start
/// (nohup, a job in the background of a script).
sigset_t stop_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction now {};
    ::sigaction(signal, nullptr, &now);
    if (now.sa_handler != SIG_IGN) sigaddset(&signals, signal);
  }
  return signals;
}

}  // namespace

// A signal asks training to stop after its step. Before there is anything to save it ends the
// program, and so does Ctrl-C when that was asked already; a terminal that goes away may send
// several of the others. Signals are taken by a thread that does nothing else and blocked in all
// others, so this comes before any of them starts: kernels of oneDNN use the stack pointer for
// data, and the frame of a handler would be written over the heap (seen with dnnl_sgemm of 2.6).
// Of several trainings in one process only the first starts it.
void catch_interrupts() {
  static bool is_caught = false;
  phase = Phase::Preparing;
  if (std::exchange(is_caught, true)) return;
  std::signal(SIGPIPE, SIG_IGN);  // nobody_reads() finds it
  const sigset_t signals = stop_signals();
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([signals] {
    while (true) {
      int signal = 0;
      ::sigwait(&signals, &signal);
      const Phase before = phase.exchange(Phase::Stopping);
      if (before == Phase::Preparing) ::dprintf(2, "interrupted before the first step\n");
      const bool has_nothing = before == Phase::Preparing || before == Phase::Over;
      if (has_nothing || (before == Phase::Stopping && signal == SIGINT)) std::_Exit(kInterrupted);
    }
  }).detach();
}

namespace {

/// Whether a pipe that this program writes to has lost its reader, as in `regla train ... | head`.
bool nobody_reads() {
  for (const int stream : {STDOUT_FILENO, STDERR_FILENO}) {
    struct stat status {};
    if (::fstat(stream, &status) != 0 || !S_ISFIFO(status.st_mode)) continue;
    pollfd pipe = {stream, 0, 0};
    if (::poll(&pipe, 1, 0) > 0 && (pipe.revents & POLLERR) != 0) return true;
  }
  return false;
}

/// An Error for several numbers where a run has one.
void check_one_value(const std::string& assignment) {
  const size_t equals = assignment.find('=');
  if (equals == assignment.npos) return;
  const std::string key = assignment.substr(0, equals), list = assignment.substr(equals + 1);
  std::string words;
  size_t values = 0;
  for (size_t begin = 0; begin <= list.size(); ++values) {
    const size_t end = std::min(list.find(',', begin), list.size());
    const std::string part = list.substr(begin, end - begin);
    if (!parse_real(part)) return;
    words += " " + part;
    begin = end + 1;
  }
  check(values < 2, "[train] a run has one ", key, ", got ", list,
        ": regla reproduce trains several seeds, or a loop of the shell, for n in", words,
        "; do regla train ... --set ", key, "=$n --out RUN-$n; done");
}

std::vector<std::string> overrides(const TrainArguments& arguments) {
  for (const std::string& assignment : arguments.set) check_one_value(assignment);
  std::vector<std::string> all = arguments.set;
  if (arguments.steps) all.push_back("steps=" + std::to_string(*arguments.steps));
  if (arguments.device) all.push_back("device=" + *arguments.device);
  return all;
}

/// The run's model with what the arguments change about its configuration; `before` is what that
/// was.
Model model_to_resume(const TrainArguments& arguments, TrainingConfig& before) {
  const std::filesystem::path folder = checkpoint_of(arguments.out);
  const bool is_begun = read_training_state(folder).is_begun();
  const std::string file =
      arguments.config.empty() || !is_begun ? (folder / "config.json").string() : arguments.config;
  std::vector<std::string> assignments;
  if (!is_begun && !arguments.config.empty()) assignments = assignments_in(arguments.config);
  const std::vector<std::string> more = overrides(arguments);
  assignments.insert(assignments.end(), more.begin(), more.end());
  TrainingConfig config = read_config(file, assignments).resolved();
  Model model = load_model(folder, opened_device(config.device), config.precision);
  before = model.config;
  before.precision = read_config(folder / "config.json", {}, NamedBy::Program).precision;
  if (config.model.vocab == 0) config.model.vocab = model.config.model.vocab;
  std::string changed;
  for (const std::string& key : changed_keys(before, config, is_begun)) {
    changed += (changed.empty() ? "" : ", ") + key;
  }
  check(changed.empty(), "[train] --resume with other values than the run's for ", changed,
        is_begun ? "; only steps, threads, device, precision and the keys of logging, validation "
                   "and checkpoints may change"
                 : "; the model and its tokenizer are what they are");
  model.config = config;
  return model;
}

std::string fingerprint(const TokenStream& text) {
  const auto ids = text.ids();
  return hexadecimal(hash_bytes({reinterpret_cast<const char*>(ids.data()), ids.size_bytes()}));
}

/// Where the training computes, and where it did so far if that was elsewhere.
void print_device(const TrainingConfig& config, const std::optional<TrainingConfig>& before) {
  const Device now = Device::named(config.device);
  const Device then = before ? Device::named(before->device) : now;
  print_row("device", now == then ? now.text() : now.text() + ", up to here on " + then.text());
}

void print_machine() {
  const std::string sets = cpu::instruction_sets();
  print_row("processor",
            cpu::processor_model() + " (built for " + cpu::architecture() + ", " + sets + ")");
  print_row("threads", threads() > 1 ? std::to_string(threads()) : "1: running single-threaded");
}

void print_text(const char* name, const std::string& file, const TokenStream& text,
                const Tokenizer& tokenizer) {
  std::string line = file + ": " + grouped(static_cast<int64_t>(text.ids().size())) + " tokens, " +
                     grouped(text.counts().bytes) + " bytes";
  if (const int64_t invalid = text.counts().invalid_bytes; invalid > 0) {
    line +=
        ", " + grouped(invalid) + " of them not valid UTF-8 (" + fate_of_invalid(tokenizer) + ")";
  }
  print_row(name, line);
}

/// `match: 200 of 2,048 tokens from step 0, learning rate 0.001`
std::string shown_stage(const Stage& stage) {
  const TrainingConfig& config = stage.config;
  const int64_t tokens = config.batch_size * config.model.sequence_length;
  return std::string(name_of(stage.objective)) + ": " + grouped(stage.end - stage.begin) + " of " +
         grouped(tokens) + " tokens from step " + grouped(stage.begin) + ", learning rate " +
         rounded(config.learning_rate, 3);
}

void print_model(const Model& model, const std::vector<Stage>& stages, int64_t per_epoch) {
  const ModelConfig& config = model.config.model;
  std::string mixers;
  for (const MixerConfig& mixer : config.mixer) {
    mixers += (mixers.empty() ? "" : ", ") + std::string(name_of(mixer.type));
  }
  print_row("tokenizer",
            model.config.tokenizer + ", " + grouped(model.tokenizer->vocab_size()) + " entries");
  print_row("model", mixers + ": " + std::to_string(config.layers) + " layers, hidden " +
                         std::to_string(config.hidden) + ", " +
                         grouped(parameter_count(*model.decoder)) + " parameters");
  if (model.config.stages.empty()) {
    const int64_t tokens = model.config.batch_size * config.sequence_length;
    print_row("steps", grouped(model.config.steps) + " of " + grouped(tokens) + " tokens, " +
                           grouped(per_epoch) + " per epoch");
    return;
  }
  print_row("teacher", model.config.teacher.empty() ? "none" : model.config.teacher);
  for (const Stage& stage : stages) print_row("steps", shown_stage(stage));
}

void print_evaluation(const EvalMetrics& m) {
  std::printf("step %lld  %s loss %.4f  ppl %.3f  word_ppl %.3f  bits_per_byte %.4f\n",
              static_cast<long long>(m.step), m.split.c_str(), m.loss, m.ppl, m.word_ppl,
              m.bits_per_byte);
  std::fflush(stdout);
}

/// What makes an update smaller and its results no others.
std::string advice_for(const TrainingConfig& config) {
  std::string advice;
  if (config.batch_size > config.micro_batches) {
    int64_t parts = config.micro_batches + 1;
    while (config.batch_size % parts != 0) ++parts;
    advice +=
        "; --set micro_batches=" + std::to_string(parts) + " computes fewer sequences at once";
  }
  if (config.activation_checkpointing != ActivationCheckpointing::Blocks) {
    const bool keeps_all = config.activation_checkpointing == ActivationCheckpointing::None;
    advice += std::string("; --set activation_checkpointing=") + (keeps_all ? "cheap" : "blocks") +
              " keeps fewer activations";
  }
  return advice;
}

/// Shows the training on both streams and runs it. Returns whether it came to its end.
bool run_shown(RunFolder& run, const Model& model, Trainer& trainer, const TokenStream* valid,
               TrainingState& state) {
  std::optional<GateWatch> gates;
  if (model.config.report && valid) gates.emplace(run.path(), model, *valid, state);
  Progress progress(stderr);
  TrainingEvents events;
  events.on_step = [&](const ProgressState& now, bool is_logged) {
    progress.update(now, is_logged);
  };
  events.on_scoring = [&](int64_t done, int64_t total) {
    progress.finish();
    show_scoring(done, total);
  };
  events.on_evaluation = [&](const EvalMetrics& metrics) {
    end_scoring();
    print_evaluation(metrics);
    if (gates) gates->look(metrics.step);
  };
  events.should_stop = [] { return phase == Phase::Stopping || nobody_reads(); };
  phase = Phase::Training;
  try {
    return run_training(run, model, trainer, valid, state, events);
  } catch (const MemoryError& error) {
    throw MemoryError(error.what() + advice_for(model.config));
  }
}

/// What a training works on. Whatever is wrong with the input shows while it is put together.
struct Job {
  Corpus corpus;
  Model model;
  TokenStream text;
  std::optional<TokenStream> valid;
  std::optional<TrainingConfig> before;  // of a run that goes on
  std::vector<Stage> stages;
  int64_t done = 0;  // updates of the run so far
  Teacher teacher;   // null where nothing is learned from one any more

  /// The trainer of a stage. The last that has a teacher takes it along.
  std::unique_ptr<Trainer> trainer_of(size_t index) {
    const Stage& stage = stages[index];
    Objective objective = objective_of(stage, teacher);
    const auto rest = stages.begin() + static_cast<std::ptrdiff_t>(index) + 1;
    if (std::none_of(rest, stages.end(), [](const Stage& s) { return s.has_teacher(); })) {
      teacher.reset();
    }
    return std::make_unique<Trainer>(stage.config, *model.decoder, text,
                                     model.tokenizer->end_of_text(), std::move(objective),
                                     Done{stage.begin, stage.tokens});
  }
};

/// Where the training of a run goes on, counted in updates.
int64_t steps_done(const TrainArguments& arguments) {
  return arguments.resume ? read_training_state(checkpoint_of(arguments.out)).step : 0;
}

Job prepare(const TrainArguments& arguments) {
  std::optional<Model> resumed;
  std::optional<TrainingConfig> before;
  if (arguments.resume) resumed.emplace(model_to_resume(arguments, before.emplace()));
  const TrainingConfig config =
      resumed ? resumed->config : read_config(arguments.config, overrides(arguments));
  const Device device = opened_device(config.device);
  if (config.threads > 0) set_threads(static_cast<int>(config.threads));
  const Corpus corpus = Corpus::open(arguments.data, config.text);
  corpus.file(Split::Train);  // an Error before any work when there is none
  Model model =
      resumed ? *std::move(resumed) : make_model(config, tokenizer_for(config, corpus), device);
  const TokenStream text = tokenize_split(corpus, Split::Train, *model.tokenizer);
  std::optional<TokenStream> valid;
  if (corpus.has(Split::Valid)) {
    valid.emplace(tokenize_split(corpus, Split::Valid, *model.tokenizer));
  }
  const int64_t done = steps_done(arguments);
  TrainingConfig up_to_here = model.config;
  up_to_here.steps = std::max(up_to_here.steps, done);
  Job job = {corpus, std::move(model), text, valid, before, stages_of(up_to_here), done, nullptr};
  const int32_t end_of_text = job.model.tokenizer->end_of_text();
  for (const Stage& stage : job.stages) {  // an Error where the text is too short for one
    Batches(job.text.ids(), stage.config.batch_size, stage.config.model.sequence_length,
            end_of_text);
  }
  const bool learns = std::any_of(job.stages.begin(), job.stages.end(), [=](const Stage& stage) {
    return stage.has_teacher() && stage.end >= done;
  });
  if (learns) job.teacher = load_teacher(config.teacher, job.model, job.stages);
  return job;
}

/// Where a training begins.
TrainingState beginning(const Job& job) {
  return {.seed = job.model.config.seed, .text = fingerprint(job.text)};
}

/// Brings the trainer of the stage that did the run's last update to where the run stands.
TrainingState resume(const TrainArguments& arguments, const Job& job, Trainer& trainer) {
  const std::filesystem::path folder = checkpoint_of(arguments.out);
  const TrainingState state = read_training_state(folder);
  if (!state.is_begun()) return beginning(job);  // of imported weights
  check(state.text == fingerprint(job.text), "[train] ", job.corpus.file(Split::Train),
        " is another text than the run was trained on");
  restore_training(folder, trainer, state);
  return state;
}

/// A schedule that ends at another step than before has another rate here: that must not go
/// unnoticed.
void print_jump(const TrainingConfig& before, const TrainingConfig& now, int64_t step) {
  if (step >= now.steps) return;
  const auto rate_at = [](const TrainingConfig& config, int64_t updates) {
    const std::vector<Stage> stages = stages_of(config);
    const Stage& stage = stages[stage_at(stages, updates + 1)];
    return learning_rate_at(stage.config, updates - stage.begin);
  };
  const double planned = rate_at(before, step), rate = rate_at(now, step);
  if (rate == planned) return;
  print_row("learning rate", "goes on at " + rounded(rate, 3) + " after " +
                                 rounded(rate_at(before, step - 1), 3) + ": " +
                                 std::string(name_of(now.schedule)) + " now ends at step " +
                                 grouped(now.steps) + ", not " + grouped(before.steps));
}

void print_job(const Job& job, const Trainer& trainer) {
  print_machine();
  print_device(job.model.config, trainer.steps_done() > 0 ? job.before : std::nullopt);
  print_text("train", job.corpus.file(Split::Train), job.text, *job.model.tokenizer);
  if (job.valid) {
    print_text("valid", job.corpus.file(Split::Valid), *job.valid, *job.model.tokenizer);
  } else {
    print_row("valid", "none: no validation");
  }
  print_model(job.model, job.stages, trainer.steps_per_epoch());
  if (const int64_t step = trainer.steps_done(); step > 0) {
    print_row("resumed at step", grouped(step));
    const Precision before = job.before->precision, now = job.model.config.precision;
    if (now != before) {
      print_row("precision", "goes on in " + std::string(name_of(now)) + " after " +
                                 std::string(name_of(before)));
    }
    print_jump(*job.before, job.model.config, step);
  }
  std::fflush(stdout);
}

int train(const TrainArguments& arguments) {
  catch_interrupts();
  check(arguments.resume || !arguments.config.empty(), "[train] expected --config FILE");
  check(arguments.resume || !holds_run(arguments.out), "[run] ", arguments.out,
        " already holds a run; use --resume or another folder");
  // Locked before it is read, so that no other training can move on in between.
  std::optional<RunFolder> run;
  if (arguments.resume) run.emplace(open_run(arguments.out));
  Job job = prepare(arguments);
  size_t stage = stage_at(job.stages, job.done);
  std::unique_ptr<Trainer> trainer = job.trainer_of(stage);
  TrainingState state;
  if (run) {
    state = resume(arguments, job, *trainer);
  } else {
    state = beginning(job);
    run.emplace(create_run(arguments.out));
  }
  note_machine(arguments.out, trainer->steps_done(), Device::named(job.model.config.device));
  print_job(job, *trainer);
  while (run_shown(*run, job.model, *trainer, job.valid ? &*job.valid : nullptr, state)) {
    if (++stage == job.stages.size()) {
      print_row("run", arguments.out);
      if (job.model.config.report) write_report_of(arguments.out);
      return phase.exchange(Phase::Over) == Phase::Stopping ? kInterrupted : 0;
    }
    trainer.reset();  // before there is memory for another
    trainer = job.trainer_of(stage);
  }
  print_line(stderr, "interrupted; saved step " + std::to_string(trainer->steps_done()) + " in " +
                         arguments.out + ", go on with --resume");
  return kInterrupted;
}

}  // namespace

std::unique_ptr<Tokenizer> tokenizer_for(const TrainingConfig& config, const Corpus& corpus) {
  if (config.tokenizer == "byte") return byte_tokenizer();
  if (config.tokenizer != "bpe") return load_tokenizer(config.tokenizer);
  return learn_tokenizer(corpus, static_cast<int32_t>(config.vocab_size));
}

void add_train(CLI::App& program, Action& action) {
  auto arguments = std::make_shared<TrainArguments>();
  CLI::App* command = program.add_subcommand("train", "Train a model, or go on with a training");
  add_config(*command, arguments->config, "; default with --resume: the run's");
  add_text(*command, "--data", arguments->data, "folder with train/valid/test files, or one file",
           "FILE")
      ->required();
  add_text(*command, "--out", arguments->out, "run folder", "FOLDER")->required();
  add_device(*command, arguments->device);
  add_steps(*command, arguments->steps);
  command->add_flag("--resume", arguments->resume, "go on from the run's last checkpoint");
  add_set(*command, arguments->set);
  command->callback([arguments, &action] { action = [arguments] { return train(*arguments); }; });
}

}  // namespace regla::app
