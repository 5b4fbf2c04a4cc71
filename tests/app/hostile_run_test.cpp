#include <sys/stat.h>

#include "storage/safetensors.h"
#include "tests/app/support.h"

namespace regla::test {
namespace {

namespace fs = std::filesystem;

}  // namespace

TEST_CASE("resuming from a run with a link in place of its checkpoints touches nothing") {
  const Workshop shop;
  REQUIRE(regla(shop.train("run", {"--steps", "2"})).code == 0);
  fs::create_directories(shop / "precious/7");
  fs::create_directories(shop / "precious/tmp-7");
  fs::rename(shop / "run/checkpoints/2", shop / "precious/2");
  fs::remove_all(shop / "run/checkpoints");
  fs::create_directory_symlink(shop / "precious", shop / "run/checkpoints");
  CHECK(regla({"inspect", shop / "run"}).code == 0);  // what is only read may be a link
  CHECK_THAT(refused(shop.train("run", {"--resume", "--steps", "4"})), Contains("no link"));
  CHECK(fs::exists(shop / "precious/7"));
  CHECK(fs::exists(shop / "precious/tmp-7"));
}

TEST_CASE("a copy and a single checkpoint are trained on to the same bytes") {
  const Workshop shop;
  REQUIRE(regla(shop.train("run", {"--steps", "3"})).code == 0);
  fs::copy(shop / "run", shop / "copy", fs::copy_options::recursive);
  fs::copy(shop / "run/checkpoints/3", shop / "single");
  for (const char* name : {"run", "copy", "single"}) {
    REQUIRE(regla(shop.train(name, {"--resume", "--steps", "5"})).code == 0);
    CHECK(read_file(shop / name + "/model.safetensors") ==
          read_file(shop / "run/model.safetensors"));
    CHECK(regla({"inspect", shop / name}).code == 0);
  }
}

TEST_CASE("--out writes through what is no file, and never over it") {
  const Workshop shop;
  REQUIRE(regla(shop.train("run", {"--steps", "0"})).code == 0);
  write_file(shop / "ids.json", "[[1, 2]]");
  const auto logits_to = [&](const std::string& out) {
    return std::vector<std::string>{"logits",          shop / "run", "--ids",
                                    shop / "ids.json", "--out",      out};
  };
  REQUIRE(regla(logits_to(shop / "file")).code == 0);
  const Outcome outcome = regla(logits_to("/dev/stdout"));
  CHECK(outcome.code == 0);
  CHECK(outcome.out == read_file(shop / "file"));
  CHECK(fs::is_symlink("/dev/stdout"));
  fs::create_symlink("file", shop / "link");
  write_file(shop / "file", "old");
  CHECK(regla(logits_to(shop / "link")).code == 0);
  CHECK(read_file(shop / "file") == outcome.out);
  CHECK(fs::is_symlink(shop / "link"));
  fs::create_directory(shop / "folder");
  CHECK_THAT(refused(logits_to(shop / "folder")), Contains("regular file"));
  REQUIRE(::mkfifo((shop / "pipe").c_str(), 0600) == 0);
  CHECK_THAT(refused(logits_to(shop / "pipe")), Contains("no reader"));
  CHECK(fs::is_fifo(shop / "pipe"));
}

TEST_CASE("pipes in the places of a run's files are refused by every command that reads them") {
  const Workshop shop;
  REQUIRE(regla(shop.train("run", {"--steps", "0"})).code == 0);
  for (const char* name : {"config.json", "tokenizer.json", "model.safetensors"}) {
    const std::string path = shop / "run/checkpoints/0/" + name;
    const std::string good = read_file(path);
    fs::remove(path);
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
    CHECK_THAT(refused({"inspect", shop / "run"}), Contains("regular file"));
    CHECK_THAT(refused({"generate", shop / "run", "--prompt", "a"}), Contains("regular file"));
    refused(shop.train("run", {"--resume"}));
    fs::remove(path);
    write_file(path, good);
  }
  write_file(shop / "outside", "mine\n");
  fs::remove(shop / "run/metrics.jsonl");
  fs::create_symlink(shop / "outside", shop / "run/metrics.jsonl");
  CHECK_THAT(refused(shop.train("run", {"--resume", "--steps", "2"})), Contains("link"));
  CHECK(read_file(shop / "outside") == "mine\n");
}

TEST_CASE("a run is read beside a training that saves after every update") {
  const Workshop shop;
  Process training(command(shop.train(
      "run", {"--steps", "1000000", "--set", "checkpoint_every=1", "--set", "keep_last=1"})));
  while (!fs::exists(shop / "run/latest") && training.read(10)) {
  }
  for (int read = 0; read < 30; ++read) {
    const Outcome outcome = regla({"inspect", shop / "run"});
    CAPTURE(outcome.err);
    CHECK(outcome.code == 0);
    training.read(0);
  }
  training.kill(SIGKILL);
  training.wait();
}

}  // namespace regla::test
