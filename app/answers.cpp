#include "app/answers.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "text/batches.h"
#include "text/streaming_decoder.h"
#include "text/unicode.h"

namespace regla::app {
namespace {

GenerationOptions options_of(const Model& model, const AnswerOptions& options) {
  GenerationOptions generation = options.generation;
  generation.vocab = model.tokenizer->vocab_size();
  generation.stop = model.tokenizer->end_of_text();
  return generation;
}

/// What counts of a prompt: all of it, or what no reset makes the model forget.
std::span<const int32_t> remembered(const Model& model, std::span<const int32_t> ids) {
  if (!model.config.reset_at_documents) return ids;
  const std::vector<int32_t> resets = document_resets(ids, model.tokenizer->end_of_text());
  const auto last = std::find(resets.rbegin(), resets.rend(), 1);
  return last == resets.rend() ? ids : ids.last(static_cast<size_t>(last - resets.rbegin()) + 1);
}

std::string end_of(const std::vector<int32_t>& ids, const StreamingDecoder& decoder,
                   const GenerationOptions& options) {
  if (decoder.has_stopped()) return "stop";
  return static_cast<int64_t>(ids.size()) == options.max_new_tokens ? "length" : "end_of_text";
}

/// Notes when the first token came, and when the last did.
class Stopwatch {
 public:
  void token() {
    if (first_ == 0) first_ = seconds();
  }
  AnswerTimes times() const {
    const double now = seconds(), first = first_ == 0 ? now : first_;
    return {first - start_, now - first};
  }

 private:
  double start_ = seconds(), first_ = 0;
};

Json tokens_per_second(int64_t tokens, double seconds) {
  return tokens > 0 && seconds > 0 ? Json(static_cast<double>(tokens) / seconds) : Json();
}

Json json_of_text(const Answer& answer) {
  return {{"prompt", replace_invalid_utf8(answer.prompt)},
          {"text", answer.text},
          {"ids", answer.ids},
          {"prompt_ids", answer.prompt_ids},
          {"ended_by", answer.ended_by}};
}

void add_measures(Json& json, const AnswerTimes& times, int64_t tokens, int64_t state_bytes) {
  json["prompt_s"] = times.prompt_s;
  json["decode_s"] = times.decode_s;
  json["tokens_per_s"] = tokens_per_second(tokens, times.decode_s);
  json["state_bytes"] = state_bytes;
}

}  // namespace

double seconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

std::vector<int32_t> ids_of(const Model& model, const std::string& prompt) {
  std::vector<int32_t> ids = model.tokenizer->encode_with_specials(prompt);
  if (ids.empty()) ids.push_back(model.tokenizer->end_of_text());
  return ids;
}

void read_prompt(const Model& model, TextState& text, const std::vector<int32_t>& ids) {
  const std::span<const int32_t> rest = remembered(model, ids);
  if (model.config.reset_at_documents && rest.front() == model.tokenizer->end_of_text()) {
    const int64_t draws = text.draws;
    text = {};
    text.draws = draws;
  }
  read_on(*model.decoder, text, rest);
}

Answer continued(const Model& model, TextState& text, const AnswerOptions& options, bool goes_on,
                 const std::function<void(const std::string&)>& show) {
  const GenerationOptions generation = options_of(model, options);
  StreamingDecoder decoder(*model.tokenizer, options.stops);
  Answer answer;
  const auto add = [&](const std::string& part) {
    answer.text += part;
    if (!part.empty()) show(part);
  };
  Stopwatch watch;
  const auto on_token = [&](int32_t id) {
    watch.token();
    add(decoder.add(id));
    return !decoder.has_stopped();
  };
  if (goes_on) {
    answer.ids = write_on(*model.decoder, text, generation, on_token);
  } else {
    const auto of_text = [&](int64_t, int32_t id) { return on_token(id); };
    answer.ids = continue_texts(*model.decoder, text, generation, of_text)[0];
  }
  answer.times = watch.times();
  add(decoder.finish());
  answer.ended_by = end_of(answer.ids, decoder, generation);
  answer.state_bytes = text.state.bytes();
  return answer;
}

namespace {

/// Prompts from `begin` on, as many as a batch has: the last one again where there are no more.
std::vector<Answer> answer_batch(const Model& model, const std::vector<std::string>& prompts,
                                 size_t begin, size_t batch, const AnswerOptions& options,
                                 Answers& sums) {
  GenerationOptions generation = options_of(model, options);
  generation.first_row = static_cast<int64_t>(begin);
  std::vector<Answer> answers(batch);
  std::vector<StreamingDecoder> decoders(batch, StreamingDecoder(*model.tokenizer, options.stops));
  std::vector<std::vector<int32_t>> ids;
  for (size_t i = 0; i < batch; ++i) {
    answers[i].prompt = prompts[std::min(begin + i, prompts.size() - 1)];
    answers[i].prompt_ids = ids_of(model, answers[i].prompt);
    const std::span<const int32_t> rest = remembered(model, answers[i].prompt_ids);
    ids.emplace_back(rest.begin(), rest.end());
  }
  Stopwatch watch;
  TextState texts = read_prompts(*model.decoder, ids);
  const auto on_token = [&](int64_t sequence, int32_t id) {
    watch.token();
    const auto i = static_cast<size_t>(sequence);
    answers[i].text += decoders[i].add(id);
    return !decoders[i].has_stopped();
  };
  ids = continue_texts(*model.decoder, texts, generation, on_token);
  const AnswerTimes times = watch.times();
  sums.times.prompt_s += times.prompt_s;
  sums.times.decode_s += times.decode_s;
  sums.state_bytes = std::max(sums.state_bytes, texts.state.bytes());
  answers.resize(std::min(batch, prompts.size() - begin));
  for (size_t i = 0; i < answers.size(); ++i) {
    answers[i].text += decoders[i].finish();
    answers[i].ids = ids[i];
    answers[i].ended_by = end_of(ids[i], decoders[i], generation);
    sums.tokens_timed += std::max<int64_t>(0, static_cast<int64_t>(ids[i].size()) - 1);
  }
  return answers;
}

}  // namespace

Answers answer_all(const Model& model, const std::vector<std::string>& prompts,
                   const AnswerOptions& options, int64_t batch_size,
                   const std::function<void(const Answer&)>& show) {
  Answers answers;
  const size_t batch = std::min(static_cast<size_t>(batch_size), prompts.size());
  for (size_t begin = 0; begin < prompts.size(); begin += batch) {
    for (Answer& answer : answer_batch(model, prompts, begin, batch, options, answers)) {
      show(answer);
      answers.all.push_back(std::move(answer));
    }
  }
  return answers;
}

Json json_of(const Answer& answer) {
  Json json = json_of_text(answer);
  add_measures(json, answer.times, static_cast<int64_t>(answer.ids.size()) - 1, answer.state_bytes);
  return json;
}

Json json_of(const Answers& answers) {
  Json texts = Json::array();
  for (const Answer& answer : answers.all) texts.push_back(json_of_text(answer));
  Json json = {{"texts", texts}};
  add_measures(json, answers.times, answers.tokens_timed, answers.state_bytes);
  return json;
}

}  // namespace regla::app
