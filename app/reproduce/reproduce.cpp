#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "app/options.h"
#include "app/program.h"
#include "app/reproduce/experiment.h"
#include "app/reproduce/runs.h"
#include "storage/files.h"
#include "text/corpus.h"
#include "training/run_folder.h"

namespace regla::app {
namespace {

namespace fs = std::filesystem;

struct ReproduceArguments {
  std::string number, scale = "cpu", out = "runs/reproduce";
  Setting setting;
  bool dry_run = false, json = false;
};

using Make = Experiment (*)(const Setting&, int64_t number);

/// What is refused before any work, where a run would refuse it hours later or take no notice.
void check_setting(const Setting& setting) {
  for (const std::string& assignment : setting.set) {
    const std::string key = assignment.substr(0, assignment.find_first_of(".="));
    check(key != "seed" && key != "device" && key != "mixer", "[reproduce] --set ", key,
          ": seeds come from --seeds, the device from --device, mixers from the table");
  }
  if (!setting.teacher.empty()) checkpoint_of(setting.teacher);
  if (!setting.data.empty()) {
    const Corpus corpus = Corpus::open(setting.data);
    corpus.file(Split::Train);
    corpus.file(split_named(setting.split));
  }
}

/// Tokens a second of training here, and where that is from: the runs of the folder, else what was
/// measured when the scale was written down.
struct Speed {
  double tokens_per_s;
  std::string source;
};

Speed speed_of(const Setting& setting) {
  double tokens = 0, seconds = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(setting.folder, error)) {
    const auto state = state_of(entry.path());
    if (!state) continue;
    tokens += static_cast<double>(state->tokens);
    seconds += state->elapsed_s;
  }
  if (tokens > 0 && seconds > 0) return {tokens / seconds, "that of the runs in this folder"};
  if (Device::named(setting.device).is_cpu()) {
    return {setting.scale->cpu_speed, "that of two cores"};
  }
  return {setting.scale->gpu_speed, "that of an H100"};
}

/// What a call would do, without doing it.
Json plan_of(const Setting& setting, const Experiment& experiment) {
  Json works = Json::array();
  int64_t runs = 0, updates = 0, tokens = 0;
  double figures = 0;
  for (const Work& work : experiment.works) {
    Json commands = Json::array();
    for (const Step& step : work.missing()) commands.push_back(command_text(step.words));
    if (commands.empty()) continue;
    works.push_back({{"name", work.name},
                     {"updates", work.updates},
                     {"tokens", work.tokens},
                     {"commands", commands}});
    runs += work.updates > 0 ? 1 : 0;
    updates += work.updates;
    tokens += work.tokens;
    figures += work.seconds;
  }
  const Speed speed = speed_of(setting);
  return {{"experiment", experiment.name},
          {"folder", setting.folder.string()},
          {"works", experiment.works.size()},
          {"missing", works},
          {"runs", runs},
          {"updates", updates},
          {"tokens", tokens},
          {"training_seconds", static_cast<double>(tokens) / speed.tokens_per_s},
          {"tokens_per_second", speed.tokens_per_s},
          {"speed_is", speed.source},
          {"figure_seconds", figures},
          {"figures_are", std::string(setting.scale->figures_are)}};
}

void print_plan(const Json& plan) {
  for (const Json& work : plan["missing"]) {
    for (const Json& command : work["commands"]) print_line(stdout, command.get<std::string>());
  }
  print_row("missing", std::to_string(plan["missing"].size()) + " of " + plan["works"].dump());
  if (plan["runs"] > 0) {
    print_row("to be trained", plan["runs"].dump() + " runs, " +
                                   grouped(plan["updates"].get<int64_t>()) + " updates, " +
                                   grouped(plan["tokens"].get<int64_t>()) + " tokens");
    print_row("training takes",
              "about " + duration_text(plan["training_seconds"].get<double>()) + " at " +
                  grouped(std::llround(plan["tokens_per_second"].get<double>())) + " tokens/s, " +
                  plan["speed_is"].get<std::string>() + "; scoring comes on top");
  }
  if (plan["figure_seconds"] > 0) {
    print_row("takes", "about " + duration_text(plan["figure_seconds"].get<double>()) + ", " +
                           plan["figures_are"].get<std::string>());
  }
}

int reproduce(const ReproduceArguments& arguments, Make make) {
  catch_interrupts();
  Setting setting = arguments.setting;
  setting.scale = &scale_named(arguments.scale);
  setting.folder = fs::path(arguments.out) / arguments.scale;
  if (!setting.limit && setting.scale->documents > 0) setting.limit = setting.scale->documents;
  const Experiment experiment = make(setting, std::stoll(arguments.number));
  check_setting(setting);
  if (arguments.dry_run) {
    const Json plan = plan_of(setting, experiment);
    arguments.json ? print_json(plan) : print_plan(plan);
    return 0;
  }
  opened_device(setting.device);
  Comparison comparison;
  int code = 0;
  try {
    const auto diverged = do_all(setting, experiment.works);
    const OutputTo progress(STDERR_FILENO);
    comparison = experiment.compare();
    for (const auto& [name, why] : diverged) {
      comparison.notes.push_back(name + " is missing: " + why);
      code = kFailed;
    }
  } catch (const Interrupted&) {
    print_line(stderr, "interrupted; the same command goes on");
    return kInterrupted;
  }
  const Json json = json_of(comparison);
  const std::string text = text_of(comparison);
  write_file(setting.folder / (experiment.name + ".json"), json_text(json, 1) + "\n");
  write_file(setting.folder / (experiment.name + ".md"), text);
  if (arguments.json) {
    print_json(json);
  } else {
    std::printf("%s", text.c_str());
  }
  return code;
}

void add_experiments(CLI::App& reproduce_command, Action& action, const char* kind,
                     const std::vector<std::string>& numbers, const std::string& help, Make make) {
  auto arguments = std::make_shared<ReproduceArguments>();
  Setting& setting = arguments->setting;
  setting.split = std::string(kind) == "table" ? "test" : "valid";
  setting.device = "cpu";
  setting.seeds = 3;
  CLI::App* command = reproduce_command.add_subcommand(kind, help);
  add_choice(*command, "number", arguments->number, numbers, "as the paper counts them")
      ->required();
  add_choice(*command, "--scale", arguments->scale, {"cpu", "160m"},
             "size of models and trainings: cpu, hours on two cores; 160m, the paper's, on a GPU");
  add_number(*command, "--seeds", setting.seeds, "seeds, from 0 on", 1, 1000);
  add_text(*command, "--data", setting.data,
           "folder with train/valid/test files, or one file; default: none, an error where text is "
           "needed",
           "FILE");
  add_text(*command, "--out", arguments->out,
           "folder of runs and results; what is there is not done again", "FOLDER");
  add_device(*command, setting.device);
  add_set(*command, setting.set, "set keys of every configuration, for a smaller trial");
  if (std::string(kind) == "table") {
    add_split(*command, setting.split);
    add_text(*command, "--task-data", setting.task_data,
             "folder with a folder for each task, for table 5; default: none", "FOLDER");
    add_number(*command, "--limit", setting.limit,
               "documents of each task; default: at the scale cpu 300, at 160m all", 1);
    add_text(*command, "--teacher", setting.teacher,
             "run of the softmax model that linearised ones begin from; default: one trained here",
             "FOLDER");
  }
  command->add_flag("--dry-run", arguments->dry_run,
                    "only say what is missing, with which commands it is done, and how long "
                    "training takes");
  add_json(*command, arguments->json);
  command->callback(
      [arguments, make, &action] { action = [=] { return reproduce(*arguments, make); }; });
}

}  // namespace

void add_reproduce(CLI::App& program, Action& action) {
  CLI::App* command = program.add_subcommand(
      "reproduce", "Train what the paper's tables and figures show and compare with its numbers");
  command->require_subcommand(1);
  add_experiments(*command, action, "table", {"2", "4", "5", "6"},
                  "A table: perplexities (2, 4, 6), tasks in 0 and 5 shots (5)", table);
  add_experiments(*command, action, "figure", {"2", "3", "4", "5"},
                  "A figure: inner products (2), gradient of gates (3), gates before and after "
                  "training (4), decoding (5)",
                  figure);
}

}  // namespace regla::app
