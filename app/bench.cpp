#include <sys/resource.h>

#include <cstdio>

#include "app/bench_cases.h"
#include "app/command.h"
#include "backends/cpu/info.h"
#include "core/parallel.h"

namespace regla::app {
namespace {

struct BenchArguments {
  BenchOptions options;
  bool json = false;
};

using Benchmark = std::vector<BenchRow> (*)(const BenchOptions&);

/// The most memory that this process has had in use.
int64_t peak_memory() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
  return usage.ru_maxrss;
#else
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
#endif
}

Json json_of(const BenchRow& row, double peak) {
  const double seconds = row.median(), gflops = row.flops / seconds / 1e9;
  return {{"name", row.name},
          {"median_s", seconds},
          {"fastest_s", row.seconds.front()},
          {"slowest_s", row.seconds.back()},
          {"repeats", row.seconds.size()},
          {"tokens_per_s", row.tokens / seconds},
          {"gflops", gflops},
          {"of_sgemm", gflops / peak}};
}

void print_table(const Json& report) {
  print_row("processor", report["processor"].get<std::string>());
  print_row("threads", report["threads"].dump());
  std::printf("%-26s %10s %10s %10s %12s %9s %9s\n", "", "median ms", "fastest", "slowest",
              "tokens/s", "GFLOP/s", "of sgemm");
  for (const Json& row : report["results"]) {
    std::printf("%-26s %10.3f %10.3f %10.3f %12.0f %9.1f %8.0f%%\n",
                row["name"].get<std::string>().c_str(), 1e3 * row["median_s"].get<double>(),
                1e3 * row["fastest_s"].get<double>(), 1e3 * row["slowest_s"].get<double>(),
                row["tokens_per_s"].get<double>(), row["gflops"].get<double>(),
                100 * row["of_sgemm"].get<double>());
  }
  print_row("sgemm GFLOP/s", rounded(report["sgemm_gflops_before"].get<double>(), 4) + " before, " +
                                 rounded(report["sgemm_gflops_after"].get<double>(), 4) + " after");
  print_row("peak memory", grouped(report["peak_memory_bytes"].get<int64_t>()) + " bytes");
}

int bench(const BenchArguments& arguments, const std::string& name, Benchmark run) {
  const BenchOptions& options = arguments.options;
  check(options.repeats > 0, "[bench] expected at least 1 repetition, got ", options.repeats);
  const double before = sgemm_peak();
  const std::vector<BenchRow> rows = run(options);
  const double after = sgemm_peak();
  Json results = Json::array();
  for (const BenchRow& row : rows) results.push_back(json_of(row, (before + after) / 2));
  const Json report = {{"benchmark", name},
                       {"processor", cpu::processor_model()},
                       {"instruction_sets", cpu::instruction_sets()},
                       {"threads", threads()},
                       {"layers", options.layers},
                       {"hidden", options.hidden},
                       {"heads", options.heads},
                       {"vocab", options.vocab},
                       {"sequence_length", options.length},
                       {"batch_size", options.batch},
                       {"sgemm_gflops_before", before},
                       {"sgemm_gflops_after", after},
                       {"results", results},
                       {"peak_memory_bytes", peak_memory()}};
  if (arguments.json) {
    print_json(report);
  } else {
    print_table(report);
  }
  return 0;
}

}  // namespace

void add_bench(CLI::App& program, Action& action) {
  auto arguments = std::make_shared<BenchArguments>();
  CLI::App* command = program.add_subcommand("bench", "Measure speed, after a check of the result");
  command->require_subcommand(1);
  const struct {
    const char *name, *meaning;
    Benchmark run;
  } benchmarks[] = {{"mixers", "single mixers", bench_mixers},
                    {"train", "updates of a whole model", bench_train},
                    {"decode", "reading a prompt and writing token by token", bench_decode}};
  for (const auto& benchmark : benchmarks) {
    CLI::App* sub = command->add_subcommand(benchmark.name, benchmark.meaning);
    BenchOptions& options = arguments->options;
    sub->add_option("--layers", options.layers, "default 4");
    sub->add_option("--hidden", options.hidden, "default 128");
    sub->add_option("--heads", options.heads, "default 2");
    sub->add_option("--vocab", options.vocab, "default 8192");
    sub->add_option("--length", options.length, "tokens of a segment, default 256");
    sub->add_option("--batch", options.batch, "sequences, default 16");
    sub->add_option("--repeats", options.repeats, "timings of each, default 9");
    sub->add_option("--mixer", options.mixers, "regla, softmax or both")
        ->check(CLI::IsMember({"regla", "softmax"}));
    sub->add_flag("--json", arguments->json, "print JSON");
    sub->callback([arguments, &action, name = benchmark.name, run = benchmark.run] {
      action = [arguments, name, run] { return bench(*arguments, name, run); };
    });
  }
}

}  // namespace regla::app
