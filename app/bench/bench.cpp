#include <algorithm>
#include <cstdio>

#include "app/analyse/analyse.h"
#include "app/bench/cases.h"
#include "app/command.h"
#include "app/options.h"
#include "backends/backend.h"
#include "backends/cpu/info.h"
#include "core/parallel.h"
#include "text/byte_tokenizer.h"

namespace regla::app {
namespace {

/// The model that is measured unless --config names another: configs/bench/small_regla.json.
constexpr const char* kDefaultConfig = R"({"batch_size": 16, "layers": 4, "hidden": 256,
    "heads": 4, "mlp": 1024, "vocab": 8192, "mixer": {"type": "regla", "rope": "full"},
    "dropout": 0.1, "sequence_length": 256, "activation_checkpointing": "none"})";

/// The same for texts: the depth of the paper's Figure 5, one sequence.
constexpr const char* kTextConfig = R"({"batch_size": 1, "layers": 6, "hidden": 256,
    "heads": 4, "mlp": 1024, "vocab": 8192, "mixer": "regla", "sequence_length": 256})";

struct BenchArguments {
  std::string config, out;
  std::vector<std::string> set;
  std::optional<std::string> device;
  int64_t longest = 16384, longest_text = 8192;
  int64_t repeats = 9;
  std::string only;
  bool json = false;
};

struct Benchmark {
  const char *name, *meaning;
  void (*run)(const BenchOptions&, Measurements&);
  const char *config = kDefaultConfig, *config_meaning = "that of configs/bench/small_regla.json";
};

/// Rows of the embedding where no text is read: those the tokenizer would ask for.
int64_t vocab_of(const TrainingConfig& config) {
  if (config.tokenizer == "byte") return padded_vocab(byte_tokenizer()->vocab_size());
  if (config.tokenizer == "bpe") return padded_vocab(config.vocab_size);
  return padded_vocab(load_tokenizer(config.tokenizer)->vocab_size());
}

BenchOptions options_of(const BenchArguments& arguments, const Benchmark& benchmark) {
  BenchOptions options;
  options.longest = arguments.longest;
  options.longest_text = arguments.longest_text;
  std::vector<std::string> overrides = arguments.set;
  if (arguments.device) overrides.push_back("device=" + *arguments.device);
  if (!arguments.config.empty()) {
    options.config = read_config(arguments.config, overrides);
  } else {
    std::string text = benchmark.config;
    for (const std::string& assignment : overrides) text = apply_override(text, assignment);
    options.config = from_json(text);
  }
  check(options.config.precision != Precision::F64,
        "[bench] expected precision fp32, tf32 or bf16, got f64");
  if (options.config.model.vocab == 0) options.config.model.vocab = vocab_of(options.config);
  options.config = options.config.resolved();
  return options;
}

Json json_of(const BenchRow& row, double product, double bandwidth) {
  const double seconds = row.quantile(0.5);
  Json json = {{"name", row.name},
               {"median_s", seconds},
               {"quartiles_s", {row.quantile(0.25), row.quantile(0.75)}},
               {"fastest_s", row.quantile(0)},
               {"slowest_s", row.quantile(1)},
               {"repeats", row.seconds.size()},
               {"calls", row.calls}};
  if (row.work.tokens > 0) json["tokens_per_s"] = row.work.tokens / seconds;
  if (row.work.flops > 0) {
    json["gflops"] = row.work.flops / seconds / 1e9;
    json["of_product"] = row.work.flops / seconds / 1e9 / product;
  }
  if (row.work.bytes > 0) {
    json["gb_per_s"] = row.work.bytes / seconds / 1e9;
    json["of_bandwidth"] = row.work.bytes / seconds / 1e9 / bandwidth;
  }
  json["allocated_bytes"] = row.allocated_bytes;
  json["system_bytes"] = row.system_bytes;
  if (row.peak_memory > 0) json["peak_memory_bytes"] = row.peak_memory;
  if (row.state_bytes > 0) json["state_bytes"] = row.state_bytes;
  return json;
}

/// The lengths from which on softmax attention is slower, by mixer.
Json crossings_of(const std::vector<BenchRow>& rows) {
  Json crossings = Json::object();
  for (const BenchRow& row : rows) {
    const std::string mixer = row.name.substr(0, row.name.find(" T="));
    if (mixer == row.name || mixer == "softmax" || crossings.contains(mixer)) continue;
    const std::optional<double> length = crossing_length(rows, mixer, "softmax");
    crossings[mixer] = length ? Json(*length) : Json();
  }
  return crossings;
}

Json report_of(const std::string& name, const BenchOptions& options, const Measurements& measured) {
  // After the rest: its buffers are no part of anyone's memory.
  const Device device = measured.device();
  const double product = measured.best_product();
  const double bandwidth = memory_bandwidth(device, measured.trials());
  Json results = Json::array();
  for (const BenchRow& row : measured.rows()) results.push_back(json_of(row, product, bandwidth));
  Json report = {{"benchmark", name},
                 {"version", REGLA_VERSION},
                 {"processor", cpu::processor_model()},
                 {"instruction_sets", cpu::instruction_sets()},
                 {"threads", threads()},
                 {"config", Json::parse(options.config.to_json())},
                 {"product_gflops", product},
                 {"product_gflops_trials", measured.products()},
                 {"memory_gb_per_s", bandwidth},
                 {"results", results}};
  if (!device.is_cpu()) report["gpu"] = model_of(device);
  if (measured.precision() != Precision::Fp32) {
    report["fp32_product_gflops"] = product_peak(device, Precision::Fp32, measured.trials());
  }
  // Rows of recurrences have lengths, too, but no mixers beside them.
  const bool has_mixers = name == "lengths" || name == "decode";
  const Json crossings = has_mixers ? crossings_of(measured.rows()) : Json();
  if (!crossings.empty()) report["softmax_slower_from"] = crossings;
  return report;
}

/// A number of the row as `format` says, with what belongs to it; blank where it was not counted.
void print_cell(const Json& row, const char* key, const char* format, double factor) {
  if (row.contains(key)) {
    std::printf(format, factor * row[key].get<double>());
  } else {
    std::printf("%12s", "");
  }
}

void print_limits(const Json& report) {
  const std::string precision = report["config"]["precision"].get<std::string>();
  print_row(precision + " product GFLOP/s",
            rounded(report["product_gflops"].get<double>(), 4) + ", best of " +
                grouped(static_cast<int64_t>(report["product_gflops_trials"].size())) +
                " trials before, between and after");
  if (report.contains("fp32_product_gflops")) {
    print_row("fp32 product GFLOP/s", rounded(report["fp32_product_gflops"].get<double>(), 4));
  }
  print_row(report.contains("gpu") ? "copied GB/s" : "read GB/s",
            rounded(report["memory_gb_per_s"].get<double>(), 4));
}

void print_table(const Json& report) {
  print_row("processor", report["processor"].get<std::string>());
  print_row("threads", report["threads"].dump());
  print_row("device", report.contains("gpu") ? report["gpu"].get<std::string>()
                                             : report["config"]["device"].get<std::string>());
  size_t width = 28;
  const auto label_of = [](const Json& row) {
    const int64_t calls = row["calls"].get<int64_t>();
    return row["name"].get<std::string>() + (calls > 1 ? " x" + std::to_string(calls) : "");
  };
  for (const Json& row : report["results"]) width = std::max(width, label_of(row).size() + 1);
  const auto print_name = [&](const std::string& name) {
    std::printf("%-*s", static_cast<int>(width), name.c_str());
  };
  print_name("");
  std::printf("%12s%12s%12s%12s%12s%12s%12s%12s%12s\n", "median ms", "quartile 1", "quartile 3",
              "tokens/s", "GFLOP/s", "% product", "GB/s", "% memory", "peak MB");
  for (const Json& row : report["results"]) {
    print_name(label_of(row));
    std::printf("%12.3f%12.3f%12.3f", 1e3 * row["median_s"].get<double>(),
                1e3 * row["quartiles_s"][0].get<double>(),
                1e3 * row["quartiles_s"][1].get<double>());
    print_cell(row, "tokens_per_s", "%12.0f", 1);
    print_cell(row, "gflops", "%12.1f", 1);
    print_cell(row, "of_product", "%12.0f", 100);
    print_cell(row, "gb_per_s", "%12.1f", 1);
    print_cell(row, "of_bandwidth", "%12.0f", 100);
    print_cell(row, "peak_memory_bytes", "%12.0f", 1e-6);
    std::printf("\n");
  }
  print_limits(report);
  if (!report.contains("softmax_slower_from")) return;
  for (const auto& [mixer, length] : report["softmax_slower_from"].items()) {
    print_row("softmax slower than",
              mixer + (length.is_null() ? " at none of these lengths"
                                        : " from T=" + rounded(length.get<double>(), 4)));
  }
}

int bench(const BenchArguments& arguments, const Benchmark& benchmark) {
  const std::string name = benchmark.name;
  if (!arguments.out.empty()) make_report_folder(arguments.out);
  const BenchOptions options = options_of(arguments, benchmark);
  if (options.config.threads > 0) set_threads(static_cast<int>(options.config.threads));
  const Device device = opened_device(options.config.device);
  allow_tf32(device, options.config.precision == Precision::Tf32);
  Measurements measured(arguments.repeats, arguments.only, device, options.config.precision);
  benchmark.run(options, measured);
  check(!measured.rows().empty(), "[bench] nothing of ", name, " begins with ",
        quoted(arguments.only));
  const Json report = report_of(name, options, measured);
  if (arguments.json) {
    print_json(report);
  } else {
    print_table(report);
  }
  if (!arguments.out.empty()) draw_texts(arguments.out, report, !arguments.json);
  return 0;
}

}  // namespace

void add_bench(CLI::App& program, Action& action) {
  auto arguments = std::make_shared<BenchArguments>();
  CLI::App* command = program.add_subcommand("bench", "Measure speed, after a check of the result");
  command->require_subcommand(1);
  const Benchmark benchmarks[] = {
      {"train", "updates of a whole model", bench_train},
      {"step", "the kernels of an update, by name", bench_step},
      {"decode",
       "a prompt, a token, and texts of softmax attention, Fast Decay and ReGLA by their length",
       bench_decode, kTextConfig, "6 layers of width 256, one sequence"},
      {"mixers", "single mixers, softmax attention beside them", bench_mixers},
      {"lengths", "the same over segments of 512 to 16384 tokens", bench_lengths},
      {"recurrences", "recurrences and softmax attention over segments of 1024 tokens and more",
       bench_recurrences},
      {"ops", "the parts of an update, and the recurrences", bench_ops}};
  for (const Benchmark& benchmark : benchmarks) {
    CLI::App* sub = command->add_subcommand(benchmark.name, benchmark.meaning);
    add_config(*sub, arguments->config, std::string("; default: ") + benchmark.config_meaning);
    add_set(*sub, arguments->set);
    add_device(*sub, arguments->device);
    add_number(*sub, "--repeats", arguments->repeats, "timings of each");
    add_json(*sub, arguments->json);
    if (benchmark.run == bench_ops || benchmark.run == bench_recurrences ||
        benchmark.run == bench_decode) {
      add_text(*sub, "--only", arguments->only, "rows whose names begin so; default: all");
    }
    if (benchmark.run == bench_lengths || benchmark.run == bench_recurrences) {
      add_number(*sub, "--longest", arguments->longest, "tokens of the longest segment");
    }
    if (benchmark.run == bench_decode) {
      add_number(*sub, "--longest", arguments->longest_text, "tokens of the longest text", 64);
      add_text(*sub, "--out", arguments->out,
               "folder for the picture of the texts, the paper's Figure 5, and its numbers; "
               "default: none",
               "FOLDER");
    }
    sub->callback([arguments, &action, benchmark] {
      action = [arguments, benchmark] { return bench(*arguments, benchmark); };
    });
  }
}

}  // namespace regla::app
