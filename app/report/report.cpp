#include "app/report/report.h"

#include "app/analyse/analyse.h"
#include "app/report/sections.h"

namespace regla::app {
namespace {

struct ReportArguments {
  std::vector<std::string> runs;
  std::string out = "report.html", device = "cpu";
  SampleRequest request;
};

int report(const ReportArguments& arguments) {
  write_report_page(arguments.runs, arguments.request, opened_device(arguments.device),
                    arguments.out, NamedBy::User);
  print_row("report", arguments.out);
  return 0;
}

}  // namespace

void write_report_page(const std::vector<std::string>& paths, const SampleRequest& request,
                       Device device, const std::string& file, NamedBy named_by) {
  check(has_gnuplot(), "[report] ", kNoGnuplot);  // before any work
  const std::vector<std::string> labels = labels_of(paths);
  Runs runs;
  for (size_t i = 0; i < paths.size(); ++i) {
    runs.push_back(read_run(paths[i], labels[i], request, device));
  }
  write_file(file, report_page(runs, request), named_by);
}

void add_report(CLI::App& program, Action& action) {
  auto arguments = std::make_shared<ReportArguments>();
  SampleRequest& request = arguments->request;
  CLI::App* command = program.add_subcommand(
      "report", "Write an HTML page about runs: curves, gates, scores, samples, sizes, machines");
  add_texts(*command, "run", arguments->runs, "run folders", "FOLDER")->required();
  add_text(*command, "--out", arguments->out, "the page", "FILE.html");
  add_number(*command, "--samples", request.samples, "texts that each model writes", 0, 20);
  add_text(*command, "--prompt", request.prompt, "what they continue; default: nothing");
  add_device(*command, arguments->device);
  command->callback([arguments, &action] { action = [arguments] { return report(*arguments); }; });
}

}  // namespace regla::app
