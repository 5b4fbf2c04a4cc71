#include "app/train_report.h"

#include <algorithm>
#include <functional>

#include "app/report/report.h"

namespace regla::app {
namespace {

constexpr int64_t kSequences = 4;  // that gates are looked at on

/// Does what a training can do without; an Error becomes a line. Returns whether there was none.
bool succeeds(const char* what, const std::function<void()>& work) {
  try {
    work();
    return true;
  } catch (const Error& error) {
    print_line(stderr, std::string(what) + error.what());
    return false;
  }
}

}  // namespace

GateWatch::GateWatch(const std::filesystem::path& run, const Model& model, const TokenStream& valid,
                     const TrainingState& state)
    : model_(model) {
  succeeds("gates are not recorded: ", [&] {
    log_.emplace(run / "gates.jsonl",
                 state.step > 0 ? std::max<int64_t>(state.evaluated_step, 0) : -1);
    sample_ = sample_text(valid, model.tokenizer->end_of_text(), kSequences,
                          model.config.model.sequence_length, model.config.reset_at_documents);
  });
  if (state.step == 0) look(0);
}

void GateWatch::look(int64_t step) {
  if (!sample_) return;
  const bool is_noted = succeeds("gates are no longer recorded: ", [&] {
    log_->append(step, observe_gates(*model_.decoder, sample_->ids, sample_->reset));
  });
  if (!is_noted) sample_.reset();
}

void write_report_of(const std::filesystem::path& run) {
  const std::string file = (run / "report.html").string();
  const bool is_written = succeeds(
      "no report: ", [&] { write_report_page({run.string()}, {}, {}, file, NamedBy::Program); });
  if (is_written) print_row("report", file);
}

}  // namespace regla::app
