#include <sstream>

#include "storage/json_fields.h"
#include "tests/app/support.h"

// How arguments are read, what is said about wrong ones, and what shells know of them.
namespace regla::test {
namespace {

namespace fs = std::filesystem;

Json json_of(const std::vector<std::string>& arguments) {
  const Outcome outcome = regla(arguments);
  CAPTURE(arguments, outcome.err);
  REQUIRE(outcome.code == 0);
  return parse_json(outcome.out, "output");
}

/// The configuration that `inspect` shows with these words after it.
Json configured(const Workshop& shop, const std::vector<std::string>& more) {
  std::vector<std::string> all = {"inspect", "--json", "--config", shop / "config.json"};
  all.insert(all.end(), more.begin(), more.end());
  return json_of(all)["configuration"];
}

std::string refused_set(const Workshop& shop, const std::string& assignment) {
  return refused({"inspect", "--config", shop / "config.json", "--set", assignment});
}

using Path = std::vector<std::string>;

std::string help_of(Path path) {
  path.push_back("--help");
  const Outcome outcome = regla(path);
  REQUIRE(outcome.code == 0);
  return outcome.out;
}

/// The first words of the indented lines below a heading of a help.
std::vector<std::string> entries(const std::string& help, const std::string& heading) {
  std::vector<std::string> words;
  std::istringstream lines(help);
  bool inside = false;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(' ')) inside = line.starts_with(heading);
    if (!inside || !line.starts_with("  ") || line.size() < 3 || line[2] == ' ') continue;
    words.push_back(line.substr(2));
  }
  return words;
}

/// Every command: `train`, `bench train`, ...
std::vector<Path> commands(const Path& path = {}) {
  std::vector<Path> all = {path};
  for (const std::string& entry : entries(help_of(path), "Subcommands")) {
    Path inner = path;
    inner.push_back(entry.substr(0, entry.find(' ')));
    const auto below = commands(inner);
    all.insert(all.end(), below.begin(), below.end());
  }
  return all;
}

std::string joined(const Path& path, const std::string& between) {
  std::string text;
  for (const std::string& word : path) text += word + between;
  return text;
}

/// What the script of bash offers for the last of these words.
std::string completed(const std::string& script, const std::vector<std::string>& words) {
  std::string array;
  for (const std::string& word : words) array += "'" + word + "' ";
  const Outcome outcome =
      Process({"/bin/bash", "--norc", "-c",
               "source '" + script + "'; compopt() { :; }; COMP_WORDS=(" + array +
                   "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _regla; echo \"${COMPREPLY[*]}\""})
          .wait();
  CAPTURE(outcome.err);
  CHECK(outcome.code == 0);
  return outcome.out;
}

}  // namespace

TEST_CASE("an empty value is a value") {
  const Workshop shop;
  REQUIRE(regla(shop.train("run", {"--steps", "0"})).code == 0);
  const Json json =
      json_of({"generate", shop / "run", "--prompt=", "--json", "--max-new-tokens=2"});
  CHECK(json["prompt"] == "");
  CHECK_THAT(refused({"generate", shop / "run", "--prompt", "a", "--seed="}),
             Contains("--seed: expected an integer"));
  CHECK_THAT(refused({"generate", shop / "run", "--prompt", "a", "--weights="}),
             Contains("--weights: expected one of f32, bf16, got \"\""));
  CHECK_THAT(refused({"inspect", "--config=", shop / "run", "--set=", "a"}),
             Contains("unexpected argument"));
  CHECK_THAT(refused({"devices", "--json="}), Contains("--json takes no value"));
  CHECK_THAT(refused({"train", "--steps"}), Contains("--steps expects a value"));
}

TEST_CASE("numbers are decimal on the command line and in --set") {
  const Workshop shop;
  CHECK(configured(shop, {"--set", "steps=0100"})["steps"] == 100);
  CHECK(configured(shop, {"--set", "steps=+7"})["steps"] == 7);
  CHECK(configured(shop, {"--set", "learning_rate=.001"})["learning_rate"] == .001);
  CHECK(configured(shop, {"--set", "learning_rate=1e-3"})["learning_rate"] == .001);
  const Json seed = configured(shop, {"--set", "seed=18446744073709551615"})["seed"];
  CHECK(seed.get<uint64_t>() == 18446744073709551615u);
  CHECK_THAT(refused_set(shop, "seed=18446744073709551616"), Contains("2^64 - 1"));
  CHECK_THAT(refused_set(shop, "seed=-1"), Contains("seed of at least 0"));
  CHECK_THAT(refused_set(shop, "steps=0x10"), Contains("expected an integer for steps"));
  for (const char* wrong : {"0x10", "1e3", "ten", "9223372036854775808", " 1", "1.5"}) {
    CHECK_THAT(refused(shop.train("run", {"--steps", wrong})),
               Contains("--steps: expected an integer"));
  }
  const std::vector<std::string> analyse = {"analyse", "gate-gradient", "--out", shop / "out"};
  std::vector<std::string> octal = analyse;
  octal.insert(octal.end(), {"--points", "010", "--refine", ".5", "0.75"});
  REQUIRE(regla(octal).code == 0);
  const Json report = parse_json(read_file(shop / "out/gate-gradient.json"), "report");
  CHECK(report["settings"]["points"] == 10);
  CHECK(report["settings"]["refine"] == Json::array({0.5, 0.75}));
  octal[5] = "0200000";
  CHECK_THAT(refused(octal), Contains("from 1 to 100000"));
}

TEST_CASE("a seed beyond 2^63 trains, resumes and generates") {
  const Workshop shop;
  const std::string seed = "18446744073709551615";
  REQUIRE(regla(shop.train("run", {"--steps", "1", "--set", "seed=" + seed})).code == 0);
  CHECK(regla(shop.train("run", {"--steps", "2", "--resume", "--set", "seed=" + seed})).code == 0);
  const auto text = [&](const std::string& other) {
    return json_of({"generate", shop / "run", "--prompt", "a", "--seed", other, "--json"})["ids"];
  };
  CHECK(text(seed) == text(seed));
  CHECK(text(seed) != text("0"));
}

TEST_CASE("--set takes several keys and stops at what is none") {
  const Workshop shop;
  const Json both = configured(shop, {"--set", "steps=3", "seed=4", "steps=5"});
  CHECK(both["steps"] == 5);
  CHECK(both["seed"] == 4);
  CHECK(configured(shop, {"--set=steps=3", "seed=4"})["seed"] == 4);
  CHECK(configured(shop, {"--set", "text=txt"})["text"] == "txt");
  CHECK_THAT(refused({"inspect", "--set", "steps=3", "runs/lr=1"}), Contains("runs/lr=1"));
  CHECK_THAT(refused({"inspect", "first", "second", "third"}),
             Contains("unexpected argument \"second\""));
  CHECK_THAT(refused(shop.train("run", {"--set", "text=txt", "steps"})),
             Contains("unexpected argument \"steps\""));
  REQUIRE(regla(shop.train("run", {"--set", "text=txt", "steps=1", "--device", "cpu"})).code == 0);
}

TEST_CASE("several seeds for one run are refused with what trains several") {
  const Workshop shop;
  const std::string line = refused(shop.train("run", {"--set", "seed=1,2,3"}));
  CHECK_THAT(line, Contains("a run has one seed, got 1,2,3") && Contains("regla reproduce") &&
                       Contains("for n in 1 2 3; do regla train ... --set seed=$n --out RUN-$n;"));
  CHECK_THAT(refused(shop.train("run", {"--set", "learning_rate=.1,1e-3"})),
             Contains("one learning_rate, got .1,1e-3"));
  CHECK_FALSE(fs::exists(shop / "run"));
  CHECK_THAT(refused(shop.train("run", {"--set", "seed=1,"})), Contains("integer for seed"));
  CHECK_THAT(refused(shop.train("run", {"--set", "tokenizer=a,b.json"})), Contains("a,b.json"));
}

TEST_CASE("what is not known is answered with what is nearest") {
  const Workshop shop;
  CHECK_THAT(refused({"trian"}), Contains("nearest is train; regla has train, eval, generate"));
  CHECK_THAT(refused({}), Contains("expected a command; regla has train"));
  CHECK_THAT(refused({"bench", "decoed"}), Contains("the nearest is decode; regla bench has"));
  CHECK_THAT(refused({"bench"}), Contains("expected a command; regla bench has train"));
  CHECK_THAT(refused({"train", "--Steps", "3"}), Contains("the nearest is --steps"));
  CHECK_THAT(refused({"generate", "r", "--temp=1"}), Contains("the nearest is --temperature"));
  CHECK_THAT(refused({"train", "-s", "3"}), Contains("unknown option \"-s\" of regla train"));
  const std::vector<std::array<std::string, 2>> meant = {
      {"lr", "learning_rate"},       {"LR", "learning_rate"},         {"n_layer", "layers"},
      {"d_model", "hidden"},         {"wd", "weight_decay"},          {"ctx", "sequence_length"},
      {"learning", "learning_rate"}, {"gate_axs", "mixer.gate_axis"}, {"hiden", "hidden"}};
  for (const auto& [key, name] : meant) {
    CHECK_THAT(refused_set(shop, key + "=1"), Contains("the nearest known key is " + name));
  }
}

TEST_CASE("every split can be scored") {
  const Workshop shop;
  REQUIRE(regla(shop.train("run", {"--steps", "0"})).code == 0);
  const auto split = [&](const std::string& name) {
    return json_of({"eval", shop / "run", "--data", shop / "data", "--split", name, "--json"});
  };
  CHECK_THAT(split("train")["file"].get<std::string>(), Contains("t.train.txt"));
  CHECK(split("train")["split"] == "train");
  for (const char* name : {"val", "valid", "validation"}) CHECK(split(name)["split"] == "valid");
  CHECK_THAT(refused({"eval", shop / "run", "--data", shop / "data", "--split", "vld"}),
             Contains("train, valid, test"));
}

TEST_CASE("the help says what an option is without it") {
  size_t options = 0;
  for (const Path& path : commands()) {
    std::istringstream lines(help_of(path));
    for (std::string line; std::getline(lines, line);) {
      if (!line.starts_with("  --")) continue;
      // Where the name is long the text begins on the next line.
      for (std::string more; lines.peek() == ' ' && std::getline(lines, more); line += more) {
        if (more.starts_with("  -")) {
          lines.seekg(-static_cast<std::streamoff>(more.size()) - 1, std::ios::cur);
          break;
        }
      }
      const std::string name = line.substr(2, line.find_first_of(" ,", 2) - 2);
      // The words after the name, up to the column of the text, are the type of a value.
      const bool is_flag = name == "--json" || name == "--resume" || name == "--version" ||
                           name == "--specials" || name == "--whole-texts" || name == "--dry-run" ||
                           name == "--without-softmax-layers";
      const bool is_list = name == "--set" || name == "--run";
      const bool is_said = line.find("efault") != line.npos || line.find("REQUIRED") != line.npos;
      const bool is_asked = name == "--data" || (name == "--config" && path.front() == "inspect");
      CAPTURE(joined(path, " "), line);
      CHECK((is_flag || is_list || is_said || is_asked));
      ++options;
    }
  }
  CHECK(options > 50);
}

TEST_CASE("completion scripts have every command and every option") {
  const Workshop shop;
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const Outcome outcome = regla({"completion", shell});
    REQUIRE(outcome.code == 0);
    write_file(shop / shell, outcome.out);
  }
  const std::string bash = shop / "bash", zsh = read_file(shop / "zsh");
  const std::string fish = read_file(shop / "fish");
  for (const Path& path : commands()) {
    CAPTURE(joined(path, " "));
    std::string help = help_of(path);
    std::vector<std::string> words = {"regla"};
    words.insert(words.end(), path.begin(), path.end());
    words.push_back("--");
    const std::string offered = " " + completed(bash, words);
    for (size_t at = help.find("--"); at != help.npos; at = help.find("--", at + 2)) {
      const size_t line = help.rfind('\n', at) + 1;
      if (at - line > 8) continue;  // within a text
      const std::string name = help.substr(at, help.find_first_of(" ,\n", at) - at);
      CAPTURE(name);
      CHECK_THAT(offered.substr(0, offered.size() - 1) + " ", Contains(" " + name + " "));
      CHECK_THAT(zsh, Contains(name));
      CHECK_THAT(fish, Contains("'__regla_at \"" + joined(path, "/") + "\"' -l " + name.substr(2)));
    }
    if (path.empty()) continue;
    words.back() = path.back();
    words.erase(words.end() - 2);
    CHECK_THAT(completed(bash, words), Contains(path.back()));
    CHECK_THAT(zsh, Contains("_regla_" + joined(path, "_") + "() {"));
  }
  CHECK(completed(bash, {"regla", "eval", "x", "--split", "v"}) == "valid\n");
  CHECK(completed(bash, {"regla", "eval", "x", "--split", "=", "te"}) == "test\n");
  CHECK(completed(bash, {"regla", "train", "--set", "learn"}) == "learning_rate=\n");
  CHECK_THAT(refused({"completion", "tcsh"}), Contains("bash, zsh, fish"));
}

}  // namespace regla::test
