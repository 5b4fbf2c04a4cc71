#include <sys/stat.h>

#include <atomic>
#include <fstream>
#include <limits>
#include <thread>

#include "storage/files.h"
#include "storage/safetensors.h"
#include "tests/error_of.h"
#include "tests/matchers.h"
#include "tests/temporary_folder.h"
#include "tests/training/support.h"
#include "text/byte_tokenizer.h"
#include "training/checkpoint.h"
#include "training/metrics.h"
#include "training/run_folder.h"

namespace regla {
namespace {

namespace fs = std::filesystem;
using test::error_of;

/// A run with real checkpoints of a model with both kinds of state.
struct Run {
  TemporaryFolder folder;
  fs::path path = folder / "run";
  Model model;
  TokenStream text = test::small_text(300);
  Trainer trainer;

  Run()
      : model(make_model(config(), byte_tokenizer())),
        trainer(model.config, *model.decoder, text, test::kEnd) {}

  static TrainingConfig config() {
    TrainingConfig config = from_json(R"({"layers": 2, "hidden": 16, "heads": 2, "mlp": 24,
        "batch_size": 4, "sequence_length": 8, "carry_state": true, "reset_at_documents": true,
        "tokenizer": "byte", "mixer": ["regla", {"type": "softmax", "window": 12}]})");
    return config;
  }
  void save(RunFolder& run, int64_t step, bool is_best, int64_t keep_last = 2) {
    save_checkpoint(
        run, step,
        [&](const fs::path& to) {
          write_training(
              to, model, trainer,
              {.step = step, .tokens = 32 * step, .best_step = is_best ? step : -1, .text = ""});
        },
        is_best, keep_last);
  }
  /// Two updates, saved as a run of the checkpoints 1 (the best) and 2.
  void make() {
    RunFolder run = create_run(path);
    for (int64_t step = 1; step <= 2; ++step) {
      trainer.step();
      save_checkpoint(
          run, step,
          [&](const fs::path& to) {
            write_training(
                to, model, trainer,
                {.step = step, .tokens = 32 * step, .best_step = 1, .best_loss = 3, .text = ""});
          },
          step == 1);
    }
  }
  std::string restore_error(const fs::path& from) {
    return error_of([&] {
      Model loaded = load_model(from);
      Trainer fresh(loaded.config, *loaded.decoder, text, test::kEnd);
      restore_training(checkpoint_of(from), fresh, read_training_state(checkpoint_of(from)));
      fresh.step();
    });
  }
};

void replace_in(const fs::path& path, const std::string& from, const std::string& to) {
  std::string text = read_file(path);
  REQUIRE(text.find(from) != std::string::npos);
  write_file(path, text.replace(text.find(from), from.size(), to));
}

}  // namespace

TEST_CASE("a carried state must be what the mixers leave after so many tokens") {
  Run run;
  run.make();
  const fs::path file = fs::canonical(run.path / "optimizer.safetensors");
  const std::string good = read_file(file);
  CHECK(run.restore_error(run.path) == "no error");
  const auto message_with = [&](const std::string& name, const Tensor& tensor) {
    std::vector<NamedTensor> tensors = read_safetensors(file).tensors;
    std::erase_if(tensors, [&](const NamedTensor& entry) { return entry.name == name; });
    if (tensor) tensors.push_back({name, tensor});
    write_safetensors(file, tensors);
    const std::string message = run.restore_error(run.path);
    write_file(file, good);
    return message;
  };
  for (const char* name :
       {"state.0.S", "state.0.m", "state.1.keys", "state.1.values", "state.position"}) {
    INFO(name);
    const Tensor tensor = read_safetensors(file).find(name);
    REQUIRE(tensor.defined());
    const std::string quoted = "\"" + std::string(name) + "\": ";
    CHECK_THAT(message_with(name, {}), Contains(quoted + "missing"));
    std::vector<int64_t> sizes(tensor.shape().sizes().begin(), tensor.shape().sizes().end());
    for (size_t axis = 0; axis < sizes.size(); ++axis) {
      std::vector<int64_t> other = sizes;
      other[axis] += 1;
      const Shape shape{std::span<const int64_t>(other)};
      CHECK_THAT(message_with(name, Tensor::zeros(shape, tensor.dtype())),
                 Contains(quoted + "expected the shape"));
    }
    CHECK_THAT(message_with(name, Tensor::zeros({2, 0}, tensor.dtype())),
               Contains(quoted + "expected the shape"));
    CHECK_THAT(message_with(name, Tensor::zeros(tensor.shape(), DType::F64)), Contains("got F64"));
  }
  // 16 tokens have passed, of which the window leaves 11.
  const auto ids = [](int32_t value) {
    return Tensor::of({4}, std::vector<int32_t>{0, 0, value, 0});
  };
  for (const int32_t bad : {-1, 17, std::numeric_limits<int32_t>::max()}) {
    CHECK_THAT(message_with("state.position", ids(bad)), Contains("position from 0 to 16"));
  }
  CHECK(message_with("state.position", ids(16)) == "no error");
  // Earlier versions wrote what follows from the positions.
  CHECK(message_with("state.1.first", ids(3)) == "no error");
  for (const char* name : {"state.0.S", "state.1.keys", "state.1.values"}) {
    Tensor tensor = read_safetensors(file).find(name);
    tensor.data<float>()[tensor.numel() - 1] = std::nanf("");
    CHECK_THAT(message_with(name, tensor), Contains("not finite"));
  }
  Tensor m = read_safetensors(file).find("state.0.m");
  m.fill(std::nan(""));
  CHECK_THAT(message_with("state.0.m", m), Contains("expected m below infinity"));
  CHECK_THAT(message_with("state.2.S", m), Contains("is no part"));
  CHECK_THAT(message_with("state.1.position", ids(3)), Contains("is no part"));
  CHECK_THAT(message_with("state.0.keys", m), Contains("is no part"));
}

TEST_CASE("the numbers of a state belong together") {
  Run run;
  run.make();
  const fs::path folder = fs::canonical(run.path / "latest");
  const std::string good = read_file(folder / "state.json");
  const auto message_with = [&](const std::string& from, const std::string& to) {
    replace_in(folder / "state.json", from, to);
    const std::string message = run.restore_error(run.path);
    write_file(folder / "state.json", good);
    return message;
  };
  CHECK_THAT(message_with("\"step\": 2", "\"step\": 3"), Contains("the step 2 of its folder"));
  CHECK_THAT(message_with("\"step\": 2", "\"step\": 4611686018427387904"),
             Contains("a step from 0 to 2147483647"));
  CHECK_THAT(message_with("\"step\": 2", "\"step\": -1"), Contains("a step from 0"));
  CHECK_THAT(message_with("\"tokens\": 64", "\"tokens\": 65"), Contains("got 65 tokens"));
  CHECK_THAT(message_with("\"tokens\": 64", "\"tokens\": -64"), Contains("tokens of at least 0"));
  CHECK_THAT(message_with("\"best_step\": 1", "\"best_step\": 3"), Contains("best_step from -1"));
  CHECK_THAT(message_with("\"evaluated_step\": -1", "\"evaluated_step\": 3"),
             Contains("evaluated_step"));
  CHECK_THAT(message_with("\"elapsed_s\": 0.0", "\"elapsed_s\": -1.0"), Contains("elapsed_s"));
  fs::copy(folder, run.folder / "7");  // a copy may have any name
  CHECK(run.restore_error(run.folder / "7") == "no error");
}

TEST_CASE("nothing is allocated for a tensor that the model does not have") {
  Run run;
  run.make();
  const fs::path file = fs::canonical(run.path / "model.safetensors");
  const std::string header =
      R"({"big":{"dtype":"F32","shape":[17179869184],"data_offsets":[0,68719476736]}})";
  const uint64_t length = header.size();
  std::ofstream out(file, std::ios::binary);
  out.write(reinterpret_cast<const char*>(&length), 8) << header;
  out.close();
  fs::resize_file(file, 8 + length + (uintmax_t{1} << 36));  // a hole
  CHECK_THAT(run.restore_error(run.path), Contains("missing"));
}

TEST_CASE("resuming removes nothing outside the run and nothing that is no checkpoint") {
  Run run;
  run.make();
  const fs::path outside = run.folder / "outside", inside = run.path / "checkpoints";
  for (const char* name : {"7", "tmp-7", "1"}) {
    fs::create_directories(outside / name);
    write_file(outside / name / "state.json", "precious");
  }
  // Links and folders with other files in the places of checkpoints stay as they are.
  fs::create_directory_symlink(outside / "7", inside / "0");
  fs::create_directory_symlink(outside / "7", inside / "tmp-0");
  fs::create_directories(inside / "tmp-5");
  write_file(inside / "tmp-5/notes.txt", "precious");
  fs::create_directories(inside / "tmp-6/config.json");
  {
    RunFolder open = open_run(run.path);
    run.save(open, 3, false, 1);
    CHECK(open.latest_step() == 3);
  }
  CHECK(read_file(inside / "tmp-5/notes.txt") == "precious");
  CHECK(fs::is_directory(inside / "tmp-6/config.json"));
  CHECK_FALSE(fs::exists(inside / "2"));
  CHECK(fs::exists(inside / "1"));  // the best
  fs::rename(inside, run.folder / "real");
  fs::create_directory_symlink(outside, inside);
  CHECK_THROWS_AS(open_run(run.path), Error);
  fs::remove(run.path / "latest");
  fs::create_symlink("checkpoints/1", run.path / "latest");
  CHECK_THROWS_WITH(open_run(run.path), Contains("no link"));
  for (const char* name : {"7", "tmp-7", "1"}) {
    CHECK(read_file(outside / name / "state.json") == "precious");
  }
  fs::remove(inside);
  fs::rename(run.folder / "real", inside);
  for (const char* target :
       {"../outside/7", "/tmp", "checkpoints/../../outside/7", "checkpoints/03"}) {
    fs::remove(run.path / "latest");
    fs::create_symlink(target, run.path / "latest");
    CHECK(checkpoint_of(run.path) == run.path / "checkpoints/3");
  }
}

TEST_CASE("pipes and endless files in a run are refused, metrics are not written elsewhere") {
  Run run;
  run.make();
  const fs::path latest = fs::canonical(run.path / "latest");
  for (const char* name : {"config.json", "tokenizer.json", "model.safetensors",
                           "optimizer.safetensors", "state.json"}) {
    INFO(name);
    fs::rename(latest / name, run.folder / "kept");
    REQUIRE(::mkfifo((latest / name).c_str(), 0600) == 0);
    CHECK_THAT(run.restore_error(run.path), Contains("regular file"));
    fs::remove(latest / name);
    fs::create_symlink("/dev/zero", latest / name);
    CHECK_THAT(run.restore_error(run.path), Contains("regular file"));
    fs::remove(latest / name);
    fs::rename(run.folder / "kept", latest / name);
  }
  const fs::path metrics = run.folder / "metrics", outside = run.folder / "outside";
  write_file(outside, "mine\n");
  fs::create_symlink(outside, metrics);
  CHECK_THROWS_WITH(MetricsLog(metrics, 5, 5), Contains("got the link"));
  fs::remove(metrics);
  REQUIRE(::mkfifo(metrics.c_str(), 0600) == 0);
  CHECK_THROWS_AS(MetricsLog(metrics, 5, 5), Error);
  fs::remove(metrics);
  write_file(outside, "{\"step\":1}\n");
  fs::create_hard_link(outside, metrics);
  MetricsLog(metrics, 5, 5).append(StepMetrics{.step = 2});
  CHECK(read_file(outside) == "{\"step\":1}\n");
  CHECK(read_file(metrics).starts_with("{\"step\":1}\n{\"step\":2,"));
}

TEST_CASE("a copy goes on, whatever became of its links") {
  Run run;
  run.make();
  const std::string weights = read_file(run.path / "model.safetensors");
  const auto check_copy = [&](const fs::path& copy, bool has_best) {
    INFO(copy);
    CHECK(run.restore_error(copy) == "no error");
    for (int again = 0; again < 2; ++again) {
      RunFolder open = open_run(copy);
      CHECK(open.latest_step() == 2);
      CHECK(open.best_step() == (has_best ? std::optional<int64_t>(1) : std::nullopt));
      CHECK(fs::is_symlink(copy / "config.json"));
      CHECK(read_file(copy / "model.safetensors") == weights);
    }
    CHECK(run.restore_error(copy) == "no error");
    RunFolder open = open_run(copy);
    run.save(open, 3, false);
    CHECK(open.latest_step() == 3);
    CHECK_FALSE(fs::exists(copy / "checkpoints/tmp-2-old"));
  };
  fs::copy(run.path, run.folder / "followed", fs::copy_options::recursive);
  REQUIRE_FALSE(fs::is_symlink(run.folder / "followed/latest"));
  check_copy(run.folder / "followed", true);
  fs::copy(run.path, run.folder / "dropped",
           fs::copy_options::recursive | fs::copy_options::skip_symlinks);
  REQUIRE_FALSE(fs::exists(run.folder / "dropped/latest"));
  check_copy(run.folder / "dropped", true);
  fs::copy(run.path, run.folder / "texts",
           fs::copy_options::recursive | fs::copy_options::skip_symlinks);
  for (const auto& entry : fs::directory_iterator(run.path)) {
    if (!entry.is_symlink()) continue;
    write_file(run.folder / "texts" / entry.path().filename(), fs::read_symlink(entry).string());
  }
  check_copy(run.folder / "texts", true);
  fs::copy(run.path / "checkpoints/2", run.folder / "single");
  check_copy(run.folder / "single", false);
  CHECK_THROWS_WITH(open_run(run.path / "checkpoints/2"), Contains("belongs to a run"));
  CHECK(fs::is_regular_file(fs::symlink_status(run.path / "checkpoints/2/config.json")));
}

TEST_CASE("a run is read whole while it saves as often as it can") {
  Run run;
  run.make();
  std::atomic<bool> done = false;
  std::atomic<int64_t> saved = 0;
  std::thread training([&] {
    RunFolder open = open_run(run.path);
    for (int64_t step = 3; !done; ++step) {
      run.save(open, step, step % 3 == 0, 1);
      ++saved;
    }
  });
  int failures = 0;
  std::string last;
  for (int read = 0; read < 60; ++read) {
    const std::string error = error_of([&] { load_model(run.path); });
    if (error != "no error") ++failures, last = error;
  }
  while (saved < 3) std::this_thread::yield();
  done = true;
  training.join();
  INFO(last);
  CHECK(failures == 0);
}

TEST_CASE("what is being read stays until the next save; a lower keep_last frees before the save") {
  Run run;
  run.make();
  RunFolder open = open_run(run.path);
  {
    const HeldCheckpoint held(run.path);
    CHECK(held.path() == run.path / "checkpoints/2");
    run.save(open, 3, true, 1);
    CHECK(fs::exists(run.path / "checkpoints/2"));
  }
  run.save(open, 4, false, 3);
  CHECK(fs::exists(run.path / "checkpoints/2"));
  bool freed = false;
  save_checkpoint(
      open, 5,
      [&](const fs::path& to) {
        freed = !fs::exists(run.path / "checkpoints/2");
        run.trainer.step();
        write_training(to, run.model, run.trainer, {.step = 5, .text = ""});
      },
      false, 1);
  CHECK(freed);
}

}  // namespace regla
