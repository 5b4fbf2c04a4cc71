#include <chrono>
#include <thread>

#include "storage/json_fields.h"
#include "tests/app/support.h"
#include "tests/gpu.h"

namespace regla::test {
namespace {

namespace fs = std::filesystem;

const char* const kMixers[] = {"mixer=regla", "mixer={\"type\": \"softmax\", \"window\": 16}"};

std::vector<std::string> settings(const std::string& mixer, int threads) {
  return {"--set", mixer,
          "--set", "carry_state=true",
          "--set", "reset_at_documents=true",
          "--set", "micro_batches=2",
          "--set", "threads=" + std::to_string(threads)};
}

int64_t latest_step(const std::string& run) {
  std::error_code error;
  const fs::path target = fs::read_symlink(fs::path(run) / "latest", error);
  return error ? -1 : std::stoll(target.filename().string());
}

/// Starts a training and kills it, with no chance to clean up, once `step` is saved and then some
/// milliseconds passed. Returns whether it was still at work.
bool kill_after(const std::vector<std::string>& arguments, const std::string& run, int64_t step,
                int milliseconds) {
  Process training(command(arguments));
  while (latest_step(run) < step && training.read(1)) {
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  training.kill(SIGKILL);
  return training.wait().code == 128 + SIGKILL;
}

/// The weights, moments and carried states of a checkpoint, or of a run's newest, as bytes.
std::string contents(const std::string& run) {
  return read_file(run + "/model.safetensors") + read_file(run + "/optimizer.safetensors");
}

/// Step and loss of each line of metrics about training.
std::vector<std::pair<int64_t, double>> losses(const std::string& run) {
  std::vector<std::pair<int64_t, double>> all;
  const std::string text = read_file(run + "/metrics.jsonl");
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    const Json line = parse_json(text.substr(at, end - at), "metrics");
    if (!line.contains("split")) {
      all.emplace_back(line["step"].get<int64_t>(), line["loss"].get<double>());
    }
    at = end + 1;
  }
  return all;
}

std::vector<std::string> with(std::vector<std::string> arguments, const std::string& more) {
  arguments.push_back(more);
  return arguments;
}

}  // namespace

TEST_CASE("100 steps are 50 steps, a kill and a resume, bit by bit, at any thread count") {
  for (const char* mixer : kMixers) {
    std::string of_one_thread;
    for (const int threads : {1, 2}) {
      CAPTURE(mixer, threads);
      const Workshop shop;
      const auto straight = shop.train("straight", settings(mixer, threads));
      const auto broken = shop.train("broken", settings(mixer, threads));
      REQUIRE(regla(straight).code == 0);
      bool killed = false;
      for (int trial = 0; trial < 20 && !killed; ++trial) {
        fs::remove_all(shop / "broken");
        killed = kill_after(broken, shop / "broken", 50, 0);
      }
      REQUIRE(killed);
      REQUIRE(latest_step(shop / "broken") == 50);
      REQUIRE(regla(with(broken, "--resume")).code == 0);
      CHECK(contents(shop / "broken") == contents(shop / "straight"));
      CHECK(losses(shop / "broken") == losses(shop / "straight"));
      CHECK(losses(shop / "broken").size() == 100);
      if (of_one_thread.empty()) of_one_thread = contents(shop / "straight");
      CHECK(contents(shop / "straight") == of_one_thread);
    }
  }
}

TEST_CASE("a training on a GPU that is killed and goes on has the bits of one that was not",
          "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  for (const char* precision : {"bf16", "fp32"}) {
    for (const char* mixer : kMixers) {
      CAPTURE(mixer, precision);
      const Workshop shop;
      std::vector<std::string> more = settings(mixer, 1);
      more.insert(more.end(), {"--device", device->text(), "--steps", "400", "--set",
                               "precision=" + std::string(precision), "--set", "eval_every=90",
                               "--set", "learning_rate=0.01"});
      const auto straight = shop.train("straight", more), broken = shop.train("broken", more);
      REQUIRE(regla(straight).code == 0);
      bool killed = false;
      for (int trial = 0; trial < 20 && !killed; ++trial) {
        fs::remove_all(shop / "broken");
        killed = kill_after(broken, shop / "broken", 100, 7);
      }
      REQUIRE(killed);
      const int64_t step = latest_step(shop / "broken");
      CHECK((step >= 100 && step < 400));
      REQUIRE(regla(with(broken, "--resume")).code == 0);
      CHECK(latest_step(shop / "broken") == 400);
      for (const char* link : {"latest", "best"}) {
        INFO(link);
        CHECK(contents(shop / ("broken/" + std::string(link))) ==
              contents(shop / ("straight/" + std::string(link))));
      }
      CHECK(losses(shop / "broken") == losses(shop / "straight"));
      CHECK(losses(shop / "broken").size() == 400);
    }
  }
}

TEST_CASE("a training that is killed again and again, also while saving, loses nothing") {
  const Workshop shop;
  std::vector<std::string> more = settings(kMixers[0], 2);
  more.insert(more.end(),
              {"--set", "checkpoint_every=1", "--set", "eval_every=7", "--steps", "60"});
  const auto straight = shop.train("straight", more), broken = shop.train("broken", more);
  REQUIRE(regla(straight).code == 0);
  int kills = 0;
  for (int64_t step = 3; step < 54; step += 6) {
    const bool begun = latest_step(shop / "broken") >= 0;
    if (begun && latest_step(shop / "broken") >= step) continue;
    kills += kill_after(begun ? with(broken, "--resume") : broken, shop / "broken", step, kills);
  }
  CHECK(kills > 0);
  REQUIRE(regla(with(broken, "--resume")).code == 0);
  CHECK(contents(shop / "broken") == contents(shop / "straight"));
  CHECK(losses(shop / "broken") == losses(shop / "straight"));
}

TEST_CASE("Ctrl-C saves, exits with 130 and can be resumed") {
  for (const int signal : {SIGINT, SIGTERM}) {
    const Workshop shop;
    const std::vector<std::string> many = {"--steps", "100000", "--set", "checkpoint_every=0"};
    Process training(command(shop.train("run", many)));
    while (training.so_far().err.find("step 3/") == std::string::npos && training.read(1000)) {
    }
    training.kill(signal);
    const Outcome outcome = training.wait();
    CAPTURE(outcome.err);
    CHECK(outcome.code == 130);
    const int64_t step = latest_step(shop / "run");
    CHECK(step >= 3);
    const std::string steps = std::to_string(step + 2);
    REQUIRE(regla(with(shop.train("run", {"--steps", steps}), "--resume")).code == 0);
    REQUIRE(regla(shop.train("straight", {"--steps", steps})).code == 0);
    CHECK(contents(shop / "run") == contents(shop / "straight"));
  }
}

TEST_CASE("a run goes on with its own configuration and can be extended") {
  const Workshop shop;
  REQUIRE(regla(shop.train("run", {"--steps", "4"})).code == 0);
  REQUIRE(
      regla({"train", "--data", shop / "data", "--out", shop / "run", "--resume", "--steps", "6"})
          .code == 0);
  CHECK(latest_step(shop / "run") == 6);
  CHECK(losses(shop / "run").size() == 6);
  // There is nothing left to do, and that is no error.
  CHECK(regla({"train", "--data", shop / "data", "--out", shop / "run", "--resume"}).code == 0);
  CHECK(losses(shop / "run").size() == 6);
}

}  // namespace regla::test
