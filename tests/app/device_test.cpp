// --device: a device that is not there is one line and no work, and never a silent run on the CPU.
#include "storage/json_fields.h"
#include "tests/app/support.h"

namespace regla::test {
namespace {

namespace fs = std::filesystem;

constexpr const char* kNowhere = "cuda:63";  // a GPU that no machine here has

/// The value of a key in a run's configuration.
Json key_of(const std::string& run, const std::string& key) {
  return parse_json(read_file(run + "/config.json"), "config")[key];
}

}  // namespace

TEST_CASE("every command that computes refuses a device that is not there") {
  const Workshop shop;
  const std::string run = shop / "run", data = shop / "data", out = shop / "out";
  REQUIRE(regla(shop.train("run", {"--steps", "0"})).code == 0);
  write_file(shop / "ids.json", "[[1, 2, 3]]");
  const std::vector<std::vector<std::string>> commands = {
      shop.train("other"),
      {"eval", run, "--data", data},
      {"generate", run, "--prompt", "a"},
      {"logits", run, "--ids", shop / "ids.json", "--out", out},
      {"inspect", run, "--data", data},
      {"inspect", "--config", shop / "config.json"},
      {"analyse", "variance", "--data", data, "--out", out},
      {"analyse", "gate-histogram", "--data", data, "--out", out},
      {"analyse", "gate-histogram", run, "--data", data, "--out", out},
      {"analyse", "saturation", run, "--data", data, "--out", out},
      {"bench", "train"},
      {"bench", "decode"},
      {"bench", "mixers"},
      {"bench", "lengths"},
      {"bench", "ops"}};
  for (std::vector<std::string> command : commands) {
    command.insert(command.end(), {"--device", kNowhere});
    CHECK_THAT(refused(command), Contains(kNowhere));
    CHECK(regla(command).out.empty());
  }
  CHECK_FALSE(fs::exists(shop / "other"));
  CHECK_FALSE(fs::exists(out));
  CHECK_THAT(refused({"eval", run, "--data", data, "--device", "tpu"}), Contains("expected cpu"));
}

TEST_CASE("a driver that is too old is told of in one line") {
  const std::string folder = REGLA_OLD_DRIVER;
  if (folder.empty()) return skip("this build has no CUDA backend");
  const std::vector<std::string> arguments = {"eval", "nowhere", "--data", "x", "--device", "cuda"};
  const char* const others = std::getenv("LD_LIBRARY_PATH");
  const std::string folders = folder + (others ? ":" + std::string(others) : "");
  Process program(command(arguments), [&] { ::setenv("LD_LIBRARY_PATH", folders.c_str(), 1); });
  const Outcome outcome = program.wait();
  CHECK(outcome.code == 2);
  CHECK_THAT(outcome.err, Contains("[device] no cuda:0 here: the driver knows CUDA 11.4 at most, "
                                   "and this build needs 1"));
  CHECK(outcome.err.find('\n') + 1 == outcome.err.size());
}

TEST_CASE("the device of a training is a key of its configuration, and may change") {
  const Workshop shop;
  const std::string run = shop / "run";
  CHECK_THAT(regla(shop.train("run", {"--steps", "1"})).out,
             Contains("device                 cpu\n"));
  CHECK(key_of(run, "device") == "cpu");
  CHECK_THAT(refused(shop.train("run", {"--resume", "--set", "device=cuda:63"})),
             Contains(kNowhere));
  CHECK_THAT(refused(shop.train("other", {"--set", "device=gpu"})), Contains("[device] expected"));
  // A run of another machine's GPU goes on there, unless it is told to go on here.
  const std::string file = run + "/config.json";
  std::string text = read_file(file);
  const std::string here = "\"device\": \"cpu\"";
  REQUIRE(text.find(here) != text.npos);
  write_file(fs::canonical(file),
             text.replace(text.find(here), here.size(), "\"device\": \"cuda:63\""));
  const std::vector<std::string> resume = {"train", "--resume", "--data",  shop / "data",
                                           "--out", run,        "--steps", "2"};
  CHECK_THAT(refused(resume), Contains(kNowhere));
  std::vector<std::string> on_cpu = resume;
  on_cpu.insert(on_cpu.end(), {"--device", "cpu"});
  const Outcome resumed = regla(on_cpu);
  CHECK(resumed.code == 0);
  CHECK_THAT(resumed.out, Contains("device                 cpu, up to here on cuda:63\n"));
  CHECK(key_of(run, "device") == "cpu");
  // A run from before there was the key goes on.
  text = read_file(file);
  const size_t begin = text.find(here);
  write_file(fs::canonical(file), text.erase(begin, text.find('\n', begin) - begin));
  CHECK(regla(shop.train("run", {"--resume", "--steps", "3"})).code == 0);
}

}  // namespace regla::test
