// Texts that the program continues: prompts of a file, lines that come in, states that are saved.

#include <algorithm>
#include <sstream>

#include "storage/json_fields.h"
#include "tests/app/support.h"
#include "text/unicode.h"

namespace regla::test {
namespace {

using Strings = std::vector<std::string>;

Json json_of(const Strings& arguments) {
  const Outcome outcome = regla(arguments);
  CAPTURE(arguments, outcome.err);
  REQUIRE(outcome.code == 0);
  return parse_json(outcome.out, "generate");
}

/// A workshop with a run.
struct WithRun : Workshop {
  explicit WithRun(const Strings& more = {"--steps", "30"}) {
    REQUIRE(regla(train("run", more)).code == 0);
  }
  /// The arguments of `generate`.
  Strings generate(const Strings& more) const {
    Strings all = {"generate", *this / "run"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
};

Strings with(Strings arguments, const Strings& more) {
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

/// The program with a pipe as its standard input.
class Piped {
 public:
  explicit Piped(const Strings& arguments) : process_(start(arguments)) { ::close(ends_[0]); }
  ~Piped() { close(); }
  void say(const std::string& text) {
    REQUIRE(::write(ends_[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  }
  void close() {
    if (ends_[1] >= 0) ::close(ends_[1]);
    ends_[1] = -1;
  }
  /// What it wrote once there are so many lines.
  std::string await_lines(int64_t count) {
    for (int tries = 0; tries < 600; ++tries) {
      const std::string out = process_->so_far().out;
      if (std::count(out.begin(), out.end(), '\n') >= count || !process_->read(100)) break;
    }
    return process_->so_far().out;
  }
  Outcome wait() { return process_->wait(); }

 private:
  std::unique_ptr<Process> start(const Strings& arguments) {
    REQUIRE(::pipe2(ends_, O_CLOEXEC) == 0);
    return std::make_unique<Process>(command(arguments), [this] { ::dup2(ends_[0], 0); });
  }

  int ends_[2];
  std::unique_ptr<Process> process_;
};

Outcome answered(const Strings& arguments, const std::string& lines) {
  Piped program(arguments);
  program.say(lines);
  program.close();
  return program.wait();
}

}  // namespace

TEST_CASE("an answer is told with its times, its speed and the bytes of its state") {
  const WithRun shop;
  const auto measured = [&](const char* tokens) {
    return json_of(shop.generate(
        {"--prompt", "the ", "--temperature", "0", "--json", "--max-new-tokens", tokens}));
  };
  const Json short_text = measured("64"), long_text = measured("1000");
  for (const Json& json : {short_text, long_text}) {
    CHECK(json["prompt_s"].get<double>() > 0);
    CHECK(json["decode_s"].get<double>() > 0);
    CHECK(json["tokens_per_s"].get<double>() ==
          Approx((static_cast<double>(json["ids"].size()) - 1) / json["decode_s"].get<double>()));
  }
  CHECK(short_text["ended_by"] == "length");
  CHECK(short_text["state_bytes"] == long_text["state_bytes"]);
  // Two layers of two heads with 16 x 16 numbers and a maximum.
  CHECK(short_text["state_bytes"] == 2 * 2 * (16 * 16 + 1) * 4);
  const Json inspected = json_of({"inspect", shop / "run", "--json"});
  CHECK(short_text["state_bytes"] == inspected["state_bytes"]);
  CHECK(measured("1")["tokens_per_s"].is_null());
}

TEST_CASE("the prompts of a file are continued as each of them alone") {
  const WithRun shop;
  const Strings prompts = {"the gate", "a", "the state decays slowly and m\xc3\xa9moire", "of 1901",
                           "stays in the state"};
  std::string file;
  for (const std::string& prompt : prompts) file += prompt + "\n";
  write_file(shop / "prompts", file);
  const Strings settings = {"--temperature", "0", "--max-new-tokens", "40", "--json"};
  for (const char* batch : {"1", "2", "8"}) {
    const Json json = json_of(
        with(shop.generate({"--prompts", shop / "prompts", "--batch-size", batch}), settings));
    REQUIRE(json["texts"].size() == prompts.size());
    for (size_t i = 0; i < prompts.size(); ++i) {
      INFO(batch << ", " << prompts[i]);
      const Json alone = json_of(with(shop.generate({"--prompt", prompts[i]}), settings));
      for (const char* key : {"prompt", "prompt_ids", "ids", "text", "ended_by"}) {
        CHECK(json["texts"][i][key] == alone[key]);
      }
    }
    CHECK(json["tokens_per_s"].get<double>() > 0);
    CHECK(json["state_bytes"] == std::min<int64_t>(std::stoll(batch), 5) * 2 * 2 * 257 * 4);
  }
}

TEST_CASE("an answer does not depend on the other prompts of its batch") {
  const WithRun shop;
  const auto answers = [&](const std::string& first, const std::string& last) {
    write_file(shop / "prompts", first + "\nthe gate of\r\n" + last);
    return json_of(shop.generate({"--prompts", shop / "prompts", "--seed", "4", "--json",
                                  "--max-new-tokens", "60"}))["texts"][1];
  };
  const Json wanted = answers("a", "the state decays slowly and stays in the state");
  CHECK(wanted["prompt"] == "the gate of");
  CHECK(answers("the state decays slowly and stays in the state , and it decays", "x") == wanted);
}

TEST_CASE("a text of a file is a line, whatever is in it") {
  const WithRun shop;
  write_file(shop / "prompts", "the\nof\na\n");
  const Outcome outcome =
      regla(shop.generate({"--prompts", shop / "prompts", "--max-new-tokens", "80"}));
  CHECK(outcome.code == 0);
  CHECK(std::count(outcome.out.begin(), outcome.out.end(), '\n') == 3);
  std::istringstream lines(outcome.out);
  std::string line;
  for (const char* prompt : {"the", "of", "a"}) {
    std::getline(lines, line);
    CHECK(line.starts_with(prompt));
  }
}

TEST_CASE("a file of prompts with an empty line, or without a line, is refused") {
  const WithRun shop({"--steps", "0"});
  const auto refusal = [&](const std::string& text) {
    write_file(shop / "prompts", text);
    return refused(shop.generate({"--prompts", shop / "prompts"}));
  };
  CHECK_THAT(refusal("a\n\nb\n"),
             Contains("prompts: expected a prompt in every line") && Contains("none in line 2"));
  CHECK_THAT(refusal("a\r\n\r\n"), Contains("none in line 2"));
  CHECK_THAT(refusal("\n"), Contains("none in line 1"));
  CHECK_THAT(refusal(""), Contains("got no line"));
  CHECK_THAT(refused(shop.generate({"--prompts", shop / "missing"})), Contains("missing"));
  CHECK_THAT(refused(shop.generate({"--prompts", shop / "prompts", "--batch-size", "0"})),
             Contains("--batch-size: expected an integer of at least 1"));
}

TEST_CASE("what is printed is whole characters, however a text is streamed") {
  const WithRun shop({"--steps", "0"});  // a model of bytes that says anything
  const Strings command =
      shop.generate({"--prompt", "\xc3\xa9\xff ", "--max-new-tokens", "300", "--seed", "2"});
  Process process(regla::test::command(command));
  while (process.read(1000)) {
    const std::string out = process.so_far().out;
    // A read may end anywhere, what the program writes may not: only the pipe can have cut it.
    CHECK(count_invalid_utf8(out.substr(0, out.size() - unfinished_utf8(out))) == 0);
  }
  const Outcome outcome = process.wait();
  CHECK(outcome.code == 0);
  CHECK(count_invalid_utf8(outcome.out) == 0);
  const Json json = json_of(with(command, {"--json"}));
  CHECK(outcome.out == json["prompt"].get<std::string>() + json["text"].get<std::string>() + "\n");
}

TEST_CASE("a text ends before a stop string") {
  const WithRun shop;
  const Strings command =
      shop.generate({"--prompt", "the ", "--temperature", "0", "--max-new-tokens", "200"});
  const auto whole = json_of(with(command, {"--json"}))["text"].get<std::string>();
  REQUIRE(whole.size() > 20);
  const std::string stop = whole.substr(9, 3);
  const Json cut = json_of(with(command, {"--json", "--stop", "never there", "--stop", stop}));
  CHECK(cut["text"] == whole.substr(0, whole.find(stop)));
  CHECK(cut["ended_by"] == "stop");
  const Outcome printed = regla(with(command, {"--stop", stop}));
  CHECK(printed.out == "the " + whole.substr(0, whole.find(stop)) + "\n");
  CHECK_THAT(refused(with(command, {"--stop", ""})), Contains("--stop of at least one byte"));
}

TEST_CASE("min-p and a repetition penalty reach the draws") {
  const WithRun shop;
  const auto ids = [&](const Strings& more) {
    return json_of(with(shop.generate({"--prompt", "the ", "--seed", "1", "--json"}), more))["ids"];
  };
  CHECK(ids({"--min-p", "1"}) == ids({"--temperature", "0"}));
  CHECK(ids({"--min-p", "0.1"}) != ids({}));
  CHECK(ids({"--repetition-penalty", "1.5"}) != ids({}));
  CHECK(ids({"--repetition-penalty", "1"}) == ids({}));
  CHECK_THAT(refused(shop.generate({"--prompt", "a", "--min-p", "2"})),
             Contains("min_p in [0, 1]"));
  CHECK_THAT(refused(shop.generate({"--prompt", "a", "--repetition-penalty", "0"})),
             Contains("repetition_penalty above 0"));
}

TEST_CASE("a state that was saved goes on with the bits of a text that was not interrupted") {
  for (const char* mixer : {"mixer=regla", "mixer=softmax"}) {
    const WithRun shop({"--steps", "30", "--set", mixer});
    const Strings settings = {"--seed", "5", "--repetition-penalty", "1.1", "--json"};
    const auto ids = [&](const Strings& more) {
      return json_of(with(shop.generate(settings), more))["ids"];
    };
    const Json whole = ids({"--prompt", "the gate", "--max-new-tokens", "50"});
    CHECK(ids({"--prompt", "the gate", "--max-new-tokens", "0", "--save-state", shop / "text"})
              .empty());
    CHECK(ids({"--load-state", shop / "text", "--max-new-tokens", "50"}) == whole);
    Json parts = ids(
        {"--load-state", shop / "text", "--max-new-tokens", "20", "--save-state", shop / "text"});
    for (const Json& id : ids({"--load-state", shop / "text", "--max-new-tokens", "30"})) {
      parts.push_back(id);
    }
    CHECK(parts == whole);
    // A prompt behind it is read on from there.
    const Json more = json_of(shop.generate(
        {"--load-state", shop / "text", "--prompt", " of", "--max-new-tokens", "5", "--json"}));
    CHECK(more["prompt"] == " of");
    CHECK(more["ids"].size() == 5);
  }
}

TEST_CASE("a state of another model, precision or tokenizer, or a file cut off, is one line") {
  const WithRun shop;
  REQUIRE(regla(shop.generate({"--prompt", "a", "--save-state", shop / "text"})).code == 0);
  const auto refusal = [&](const Strings& more) {
    return refused(with(shop.generate({"--load-state", shop / "text"}), more));
  };
  CHECK_THAT(refusal({"--precision", "bf16"}), Contains("another precision"));
  CHECK_THAT(refusal({"--weights", "bf16"}), Contains("kept in another type"));
  REQUIRE(regla(shop.train("other", {"--steps", "31"})).code == 0);
  CHECK_THAT(refused({"generate", shop / "other", "--load-state", shop / "text"}),
             Contains("is a text of another model"));
  REQUIRE(regla(shop.train("bpe",
                           {"--steps", "1", "--set", "tokenizer=bpe", "--set", "vocab_size=300"}))
              .code == 0);
  CHECK_THAT(refused({"generate", shop / "bpe", "--load-state", shop / "text"}),
             Contains("is a text of another tokenizer"));
  const std::string bytes = read_file(shop / "text");
  write_file(shop / "text", bytes.substr(0, bytes.size() - 1));
  CHECK_THAT(refusal({}), Contains(shop / "text"));
  CHECK_THAT(refused(shop.generate({"--load-state", shop / "config.json"})),
             Contains("config.json"));
  CHECK_THAT(refused(shop.generate({"--load-state", shop / "missing"})), Contains("missing"));
  {
    const FullDisk full(2000);
    CHECK_THAT(refused(shop.generate({"--prompt", "a", "--save-state", shop / "text"})),
               Contains("File too large"));
  }
  CHECK(read_file(shop / "text") == bytes.substr(0, bytes.size() - 1));
}

TEST_CASE("lines are answered one by one, in one text") {
  const WithRun shop;
  const Strings settings = {"--interactive", "--temperature", "0", "--max-new-tokens", "12"};
  Piped talk(with(shop.generate(settings), {"--json"}));
  talk.say("the gate\n");
  const Json first = parse_json(talk.await_lines(1), "first");  // before there is another line
  CHECK(first["ids"] == json_of(shop.generate({"--prompt", "the gate", "--temperature", "0",
                                               "--max-new-tokens", "12", "--json"}))["ids"]);
  talk.say("of\n\n");
  talk.close();
  const Outcome outcome = talk.wait();
  CHECK(outcome.code == 0);
  std::istringstream lines(outcome.out);
  std::vector<Json> answers;
  for (std::string line; std::getline(lines, line);) answers.push_back(parse_json(line, "line"));
  REQUIRE(answers.size() == 3);
  // The second line begins a line of the text; the third, an empty one, has it go on.
  const std::string so_far = "the gate" + first["text"].get<std::string>();
  const Json again = json_of(shop.generate(
      {"--prompt", so_far + "\nof", "--temperature", "0", "--max-new-tokens", "24", "--json"}));
  Json ids = answers[1]["ids"];
  for (const Json& id : answers[2]["ids"]) ids.push_back(id);
  CHECK(answers[1]["prompt"] == "of");
  CHECK(answers[2]["prompt_ids"].empty());
  CHECK(ids == again["ids"]);
  const Outcome printed = answered(shop.generate(settings), "the gate\nof");
  CHECK(printed.code == 0);
  CHECK(printed.out ==
        first["text"].get<std::string>() + "\n" + answers[1]["text"].get<std::string>() + "\n");
  CHECK(answered(shop.generate(settings), "").out.empty());
  CHECK(answered(shop.generate({"--interactive", "--max-new-tokens", "3"}), "\n").code == 0);
}

TEST_CASE("a conversation is saved at its end and goes on later") {
  const WithRun shop;
  const Strings settings = {"--interactive", "--seed", "3", "--max-new-tokens", "9"};
  const std::string whole = answered(shop.generate(settings), "the\nof\na\n").out;
  const Strings saving = with(shop.generate(settings), {"--save-state", shop / "talk"});
  std::string parts = answered(saving, "the\nof\n").out;
  parts += answered(with(saving, {"--load-state", shop / "talk"}), "a\n").out;
  CHECK(parts == whole);
  CHECK_THAT(
      answered(with(shop.generate({"--interactive"}), {"--save-state", shop / "none"}), "").err,
      Contains("a single text to save"));
}

TEST_CASE("options of generate that do not go together are refused") {
  const WithRun shop({"--steps", "0"});
  write_file(shop / "prompts", "a\n");
  CHECK_THAT(refused(shop.generate({})), Contains("expected --prompt, --prompts, --load-state"));
  for (const Strings& more : {Strings{"--prompt", "a"}, Strings{"--interactive"},
                              Strings{"--save-state", "x"}, Strings{"--load-state", "x"}}) {
    CHECK_THAT(refused(with(shop.generate({"--prompts", shop / "prompts"}), more)),
               Contains("--prompts goes without"));
  }
}

}  // namespace regla::test
