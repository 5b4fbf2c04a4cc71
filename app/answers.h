#pragma once

#include <functional>
#include <string>
#include <vector>

#include "app/command.h"
#include "models/generation.h"

namespace regla::app {

/// How texts are continued.
struct AnswerOptions {
  GenerationOptions generation;
  std::vector<std::string> stops;  ///< an answer ends before the first of them
};

/// What it took, in seconds: until the first token was there, and until the last.
struct AnswerTimes {
  double prompt_s = 0, decode_s = 0;
};

struct Answer {
  std::string prompt, text, ended_by;  // "length", "end_of_text" or "stop"
  std::vector<int32_t> prompt_ids, ids;
  AnswerTimes times;
  int64_t state_bytes = 0;  // that the text's mixers remember it in
};

struct Answers {
  std::vector<Answer> all;
  AnswerTimes times;
  int64_t tokens_timed = 0;  // that came after the first of their batch
  int64_t state_bytes = 0;   // of the batch that took most
};

/// Seconds since some moment.
double seconds();

/// The ids of a prompt; an empty one is the end of a text.
std::vector<int32_t> ids_of(const Model& model, const std::string& prompt);

/// Has the model read a prompt behind a text, or as its beginning.
void read_prompt(const Model& model, TextState& text, const std::vector<int32_t>& ids);

/// Continues a text and calls `show` with parts of the answer as they come, whole characters only.
/// `goes_on`: whether the text stands behind the answer afterwards, else it is used up.
Answer continued(const Model& model, TextState& text, const AnswerOptions& options, bool goes_on,
                 const std::function<void(const std::string&)>& show);

/// Continues prompts in batches of that size; prompt i draws what sequence i draws. `show` is
/// called with every answer, in order.
Answers answer_all(const Model& model, const std::vector<std::string>& prompts,
                   const AnswerOptions& options, int64_t batch_size,
                   const std::function<void(const Answer&)>& show);

Json json_of(const Answer& answer);
Json json_of(const Answers& answers);

}  // namespace regla::app
