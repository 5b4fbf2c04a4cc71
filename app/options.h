#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

// The options of sub-commands. Each says its default in the help unless it is empty. The name of
// its type tells shells what to complete: FILE, FOLDER, KEY=VALUE, or words as in `a|b|c`.
namespace regla::app {

/// A text as it is given, the empty one too.
CLI::Option* add_text(CLI::App& command, const std::string& name, std::string& value,
                      const std::string& help, const std::string& type = "TEXT");
CLI::Option* add_text(CLI::App& command, const std::string& name, std::optional<std::string>& value,
                      const std::string& help, const std::string& type = "TEXT");
/// Any number of texts.
CLI::Option* add_texts(CLI::App& command, const std::string& name, std::vector<std::string>& values,
                       const std::string& help, const std::string& type);

// Numbers as core/numbers.h reads them, from `least` to `most`.
constexpr int64_t kLeast = std::numeric_limits<int64_t>::min();
constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
CLI::Option* add_number(CLI::App& command, const std::string& name, int64_t& value,
                        const std::string& help, int64_t least = kLeast, int64_t most = kMost);
CLI::Option* add_number(CLI::App& command, const std::string& name, std::optional<int64_t>& value,
                        const std::string& help, int64_t least = kLeast, int64_t most = kMost);
CLI::Option* add_number(CLI::App& command, const std::string& name, uint64_t& value,
                        const std::string& help);
CLI::Option* add_number(CLI::App& command, const std::string& name, double& value,
                        const std::string& help);
CLI::Option* add_number(CLI::App& command, const std::string& name, std::optional<double>& value,
                        const std::string& help);
// Lists of them: `--name 1 2` and `--name 1 --name 2`.
CLI::Option* add_numbers(CLI::App& command, const std::string& name, std::vector<int64_t>& values,
                         const std::string& help, int64_t least, int64_t most);
CLI::Option* add_numbers(CLI::App& command, const std::string& name, std::vector<double>& values,
                         const std::string& help);
/// A list with commas between them: `--name 1,2`.
CLI::Option* add_list(CLI::App& command, const std::string& name, std::vector<int64_t>& values,
                      const std::string& help, int64_t least);

/// One of some words. `a=b` among them means that the word a stands for b.
CLI::Option* add_choice(CLI::App& command, const std::string& name, std::string& value,
                        const std::vector<std::string>& words, const std::string& help);

/// `run`, the folder of a run.
CLI::Option* add_run(CLI::App& command, std::string& run);
/// `--split`: train, valid (or val, validation) or test.
CLI::Option* add_split(CLI::App& command, std::string& split);
/// `--text`: which files of a split are meant where there are several.
CLI::Option* add_kind(CLI::App& command, std::string& kind);
/// `--set key=value ...`
CLI::Option* add_set(CLI::App& command, std::vector<std::string>& assignments,
                     const std::string& help = "set keys of the configuration");
/// `--config`; `otherwise` says what counts where it is absent.
CLI::Option* add_config(CLI::App& command, std::string& config, const std::string& otherwise);
/// `--steps`, which is `--set steps=N` for short.
CLI::Option* add_steps(CLI::App& command, std::optional<int64_t>& steps);
/// `--device`: where to compute.
CLI::Option* add_device(CLI::App& command, std::string& device);
/// The same where it is `--set device=D` for short; `otherwise` says what counts where it is
/// absent.
CLI::Option* add_device(CLI::App& command, std::optional<std::string>& device,
                        const std::string& otherwise = "as configured");
/// `--json`
CLI::Option* add_json(CLI::App& command, bool& json, const std::string& help = "print JSON");

/// Whether an option takes no value.
bool is_flag(const CLI::Option& option);

}  // namespace regla::app
