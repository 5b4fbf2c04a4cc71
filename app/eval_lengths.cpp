#include "app/eval_lengths.h"

#include <algorithm>
#include <cmath>

#include "app/analyse/analyse.h"
#include "app/command.h"
#include "app/gnuplot.h"
#include "app/options.h"
#include "models/finite.h"
#include "scoring/lengths.h"

namespace regla::app {
namespace {

LengthOptions options_of(const LengthArguments& arguments, const TrainingConfig& config) {
  const EvaluationOptions trained = config.evaluation();
  return {.lengths = arguments.lengths,
          .segment = trained.length,
          .batch = trained.batch,
          .stride = arguments.stride.value_or(arguments.lengths.back()),
          .reset_at_documents = trained.reset_at_documents};
}

Json rows_of(const LengthEvaluation& result) {
  Json rows = Json::array();
  for (const LengthBucket& bucket : result.buckets) {
    rows.push_back({{"begin", bucket.begin},
                    {"end", bucket.end},
                    {"tokens", bucket.tokens},
                    {"loss", bucket.loss()},
                    {"ppl", bucket.perplexity()}});
  }
  return rows;
}

void print_table(const Json& settings, const Json& rows) {
  for (const auto& [key, value] : settings.items()) {
    print_row(key, value.is_string() ? value.get<std::string>() : value.dump());
  }
  print_row("tokens before", "tokens scored, loss, perplexity");
  for (const Json& row : rows) {
    const auto begin = row["begin"].get<int64_t>(), last = row["end"].get<int64_t>() - 1;
    print_row(grouped(begin) + " to " + grouped(last),
              grouped(row["tokens"].get<int64_t>()) + ", " + rounded(row["loss"].get<double>()) +
                  ", " + rounded(row["ppl"].get<double>()));
  }
}

Report report_of(const Json& settings, const Json& rows, const std::string& label) {
  return {.name = "lengths",
          .settings = settings,
          .summary = {},
          .rows = rows,
          .variables = gnuplot_array("names", {label}) + "name = names[1]\ntrained = " +
                       settings["trained_at"].dump() + "\nshortest = " + rows[0]["end"].dump() +
                       "\nlongest = " + rows.back()["end"].dump() + "\n",
          .script = kLengthsPlot};
}

}  // namespace

void LengthArguments::add_to(CLI::App& command) {
  add_list(command, "--lengths", lengths,
           "score by position, in buckets that end there, with the state or cache carried: "
           "512,1024,8192; default: no buckets",
           1);
  add_number(command, "--stride", stride,
             "tokens from a sequence's beginning to the next; default: the last length, so that "
             "none is scored twice",
             1);
  add_text(command, "--out", out,
           "folder for the buckets as JSON, CSV and a picture; default: nowhere", "FOLDER");
}

void LengthArguments::check_given(bool has_tasks, bool has_context) const {
  if (!are_given()) {
    check(!stride && out.empty(), "[eval] --stride and --out need --lengths");
    return;
  }
  check(!has_tasks, "[eval] expected --lengths beside --data, got --tasks");
  check(!has_context, "[eval] --lengths carries the state: expected no --context beside it");
}

int eval_lengths(const LengthArguments& arguments, const Model& model, const TokenStream& text,
                 const Json& source, bool json) {
  if (!arguments.out.empty()) make_report_folder(arguments.out);
  const LengthOptions options = options_of(arguments, model.config);
  const LengthEvaluation result =
      evaluate_lengths(*model.decoder, text, model.tokenizer->end_of_text(), options, show_scoring);
  end_scoring();
  for (const LengthBucket& bucket : result.buckets) {
    if (bucket.tokens == 0 || std::isfinite(bucket.nats)) continue;
    check_finite(*model.decoder, Tensor::full({1}, bucket.nats, DType::F64), "[eval] the loss is");
  }
  Json settings = source;
  settings.update(Json{{"precision", std::string(name_of(model.config.precision))},
                       {"weights", name_of(model.decoder->weights_type())},
                       {"trained_at", options.segment},
                       {"trained_with_carried_state", model.config.carry_state},
                       {"stride", options.stride},
                       {"sequences", result.sequences}});
  const Json rows = rows_of(result);
  if (json) {
    Json printed = settings;
    printed["buckets"] = rows;
    print_json(printed);
  } else {
    print_table(settings, rows);
  }
  if (!arguments.out.empty()) {
    const std::string label = labels_of({source["run"].get<std::string>()})[0];
    write_report(arguments.out, report_of(settings, rows, label), !json);
  }
  return 0;
}

}  // namespace regla::app
