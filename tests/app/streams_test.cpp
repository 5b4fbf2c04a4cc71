#include <algorithm>
#include <chrono>
#include <csignal>

#include "storage/json_fields.h"
#include "tests/app/support.h"

// What a process finds around it: streams, signals, limits, memory.
namespace regla::test {
namespace {

namespace fs = std::filesystem;

/// As `regla`, with something done in the child before the program starts.
Outcome regla_after(const std::function<void()>& prepare,
                    const std::vector<std::string>& arguments) {
  return Process(command(arguments), prepare).wait();
}

std::vector<std::string> long_training(const Workshop& shop) {
  return shop.train("run", {"--steps", "100000", "--set", "checkpoint_every=0"});
}

/// Reads what a training says until it has done some steps.
void wait_for_steps(Process& training) {
  while (training.so_far().err.find("step 3/") == std::string::npos && training.read(1000)) {
  }
}

int64_t saved_step(const Workshop& shop) {
  std::error_code error;
  const fs::path target = fs::read_symlink(shop / "run/latest", error);
  return error ? -1 : std::stoll(target.filename().string());
}

}  // namespace

TEST_CASE("a limit on the size of files is an error of writing, not a signal") {
  const Workshop shop;
  REQUIRE(regla(shop.train("run", {"--steps", "1"})).code == 0);
  write_file(shop / "ids.json", "[[1, 2, 3, 4]]");
  const FullDisk full(2000);
  CHECK_THAT(refused({"logits", shop / "run", "--ids", shop / "ids.json", "--out", shop / "out"}),
             Contains("File too large"));
  CHECK_THAT(refused({"tokenizer", "train", "--data", shop / "data", "--vocab-size", "300", "--out",
                      shop / "tokenizer.json"}),
             Contains("File too large"));
  CHECK_THAT(refused(shop.train("other")), Contains("File too large"));
}

TEST_CASE("what is printed never lands in a file, whichever streams are closed") {
  const Workshop shop;
  for (int closed = 1; closed < 8; ++closed) {
    const std::string run = "run" + std::to_string(closed);
    const auto close_some = [closed] {
      for (int stream = 0; stream < 3; ++stream) {
        if (closed & (1 << stream)) ::close(stream);
      }
    };
    const Outcome outcome =
        regla_after(close_some, shop.train(run, {"--steps", "3", "--set", "checkpoint_every=1"}));
    CAPTURE(closed, outcome.err);
    CHECK(outcome.code == 0);
    const std::string text = read_file(shop / run + "/metrics.jsonl");
    int lines = 0;
    for (size_t at = 0; at < text.size(); ++lines) {
      const size_t end = text.find('\n', at);
      CHECK(parse_json(text.substr(at, end - at), "metrics").contains("step"));
      at = end + 1;
    }
    CHECK(lines == 4);
    CHECK(regla({"inspect", shop / run}).code == 0);
  }
}

TEST_CASE("names from outside reach a terminal escaped and on one line") {
  const Workshop shop;
  const std::string name =
                        "a\033[31mb\nc\xc2\x9b"
                        "d\xff",
                    shown = "a\\u001b[31mb\\nc\\u009bd\\xff";
  CHECK_THAT(refused({"eval", shop / name, "--data", shop / "data"}), Contains(shown));
  CHECK_THAT(refused({"train", "--config", shop / "config.json", "--data", shop / name, "--out",
                      shop / "run"}),
             Contains(shown));
  CHECK_THAT(refused({"bench", "ops", "--only", "x\033[31m"}), Contains("x\\u001b[31m"));
  const Outcome trained = regla(shop.train(name, {"--steps", "1"}));
  CHECK(trained.code == 0);
  CHECK_THAT(trained.out, Contains(shown));
  const auto is_control = [](char c) { return c != '\n' && (c & 0xE0) == 0; };
  CHECK(std::none_of(trained.out.begin(), trained.out.end(), is_control));
  fs::create_directory(shop / "texts");
  write_file(shop / ("texts/" + name + ".test.txt"), some_text(20, 1));
  const Outcome scored = regla({"eval", shop / name, "--data", shop / "texts", "--json"});
  CHECK(scored.code == 0);
  CHECK(std::none_of(scored.out.begin(), scored.out.end(), is_control));
  CHECK(parse_json(scored.out, "eval")["file"].get<std::string>().find("a\033[31mb\nc\xc2\x9b") !=
        std::string::npos);
}

TEST_CASE("a pipe without a reader and the end of a terminal save as Ctrl-C does") {
  for (const bool hang_up : {false, true}) {
    const Workshop shop;
    Process training(command(long_training(shop)));
    wait_for_steps(training);
    hang_up ? training.kill(SIGHUP) : training.close_streams();
    CHECK(training.wait().code == 130);
    CHECK(saved_step(shop) >= 3);
    CHECK(regla({"inspect", shop / "run"}).code == 0);
  }
}

TEST_CASE("several signals of a terminal that goes away do not keep a training from saving") {
  const Workshop shop;
  Process training(command(long_training(shop)));
  wait_for_steps(training);
  for (const int signal : {SIGTERM, SIGHUP, SIGTERM, SIGHUP}) training.kill(signal);
  CHECK(training.wait().code == 130);
  CHECK(saved_step(shop) >= 3);
}

TEST_CASE("signals that were ignored at the start stay so") {
  const Workshop shop;
  Process training(command(shop.train("run", {"--steps", "300"})), [] {
    std::signal(SIGHUP, SIG_IGN);
    std::signal(SIGINT, SIG_IGN);
  });
  wait_for_steps(training);
  training.kill(SIGHUP);
  training.kill(SIGINT);
  CHECK(training.wait().code == 0);
  CHECK(saved_step(shop) == 300);
}

TEST_CASE("Ctrl-C while a tokenizer is learnt ends the program within a second") {
  const Workshop shop;
  // Words that share nothing: merges without end.
  std::string text;
  const Random random(1, 1);
  for (uint64_t word = 0; word < 400000; ++word) {
    for (const uint32_t part : random.words(word)) text += std::to_string(part);
    text += word % 10 == 9 ? '\n' : ' ';
  }
  write_file(shop / "data/t.train.txt", text);
  Process training(
      command(shop.train("run", {"--set", "tokenizer=bpe", "--set", "vocab_size=30000"})));
  training.read(1500);
  const auto start = std::chrono::steady_clock::now();
  training.kill(SIGINT);
  const Outcome outcome = training.wait();
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(1));
  CHECK(outcome.code == 130);
  CHECK_THAT(outcome.err, Contains("interrupted before the first step"));
  CHECK_FALSE(fs::exists(shop / "run"));
}

TEST_CASE("no memory is exit code 1, whatever asked for it") {
  const Workshop shop;
  // More than any processor can address, so that no setting of the system grants it.
  for (const char* vocab : {"vocab=2147483647", "vocab=1000000000"}) {
    const Outcome outcome = regla(
        shop.train("run", {"--set", vocab, "--set", "hidden=2000000000", "--set", "mlp=2000"}));
    CAPTURE(outcome.err);
    CHECK(outcome.code == 1);
    CHECK(std::count(outcome.err.begin(), outcome.err.end(), '\n') == 1);
  }
  const Outcome ids =
      regla(shop.train("run", {"--set", "vocab=1000000000", "--set", "hidden=524288"}));
  CHECK(ids.code == 1);
  CHECK_THAT(ids.err, Contains("regla: error: [memory] out of memory"));
}

TEST_CASE("a configuration that lost its keys is refused before a model is made for it") {
  const Workshop shop;
  REQUIRE(regla(shop.train("run", {"--steps", "0"})).code == 0);
  const fs::path path = fs::canonical(shop / "run/config.json");
  const std::string good = read_file(path);
  for (const char* config :
       {"{}", "{\"hidden\": 200000000, \"heads\": 1}",
        "{\"layers\": 2147483647, \"hidden\": 32, \"heads\": 2, \"mlp\": 64, \"vocab\": 384}"}) {
    write_file(path, config);
    const auto start = std::chrono::steady_clock::now();
    const std::string error = refused({"inspect", shop / "run"});
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(5));
    CHECK_THAT(error, Contains("model.safetensors, tensor "));
  }
  write_file(path, good);
  CHECK(regla({"inspect", shop / "run"}).code == 0);
}

TEST_CASE("a schedule that ends at another step than before says where the rate goes") {
  const Workshop shop;
  const std::vector<std::string> cosine = {"--set", "schedule=cosine", "--set", "warmup_steps=2"};
  const auto to_step = [&](const char* steps, bool resume) {
    std::vector<std::string> all = shop.train("run", cosine);
    all.insert(all.end(), {"--steps", steps});
    if (resume) all.push_back("--resume");
    return regla(all);
  };
  REQUIRE(to_step("10", false).code == 0);
  CHECK_THAT(to_step("10", true).out, !Contains("learning rate"));
  const Outcome extended = to_step("40", true);
  CHECK(extended.code == 0);
  // Update 9 of 10 had p = 7 / 8, update 10 of 40 has p = 8 / 38.
  CHECK_THAT(extended.out, Contains("goes on at 0.00272 after 0.000403: cosine now ends at step "
                                    "40, not 10"));
}

}  // namespace regla::test
