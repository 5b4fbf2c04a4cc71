#include "app/options.h"

#include <algorithm>

#include "app/command.h"
#include "core/numbers.h"

namespace regla::app {
namespace {

std::string with_default(const std::string& help, const std::string& value) {
  return value.empty() ? help : help + " (default " + value + ")";
}

std::string default_of(const std::string& value) { return value; }
std::string default_of(int64_t value) { return std::to_string(value); }
std::string default_of(uint64_t value) { return std::to_string(value); }
std::string default_of(double value) { return rounded(value); }
template <class T>
std::string default_of(const std::optional<T>& value) {
  return value ? default_of(*value) : "";
}
template <class T>
std::string default_of(const std::vector<T>& values) {
  std::string list;
  for (const T& value : values) list += (list.empty() ? "" : " ") + default_of(value);
  return list;
}

void parse_value(const std::string& text, const std::string& name, int64_t& value, int64_t least,
                 int64_t most) {
  const std::optional<int64_t> number = parse_integer(text);
  const std::string range = least == kLeast ? ""
                            : most == kMost
                                ? " of at least " + std::to_string(least)
                                : " from " + std::to_string(least) + " to " + std::to_string(most);
  check(number && *number >= least && *number <= most, name, ": expected an integer", range,
        ", got ", quoted(text));
  value = *number;
}

void parse_value(const std::string& text, const std::string& name, uint64_t& value) {
  const std::optional<uint64_t> number = parse_unsigned(text);
  check(number.has_value(), name, ": expected an integer from 0 to ",
        std::numeric_limits<uint64_t>::max(), ", got ", quoted(text));
  value = *number;
}

void parse_value(const std::string& text, const std::string& name, double& value) {
  const std::optional<double> number = parse_real(text);
  check(number.has_value(), name, ": expected a number, got ", quoted(text));
  value = *number;
}

template <class T, class... Range>
void parse_value(const std::string& text, const std::string& name, std::optional<T>& value,
                 Range... range) {
  parse_value(text, name, value.emplace(), range...);
}

/// An option of one value, read by `parse_value`.
template <class T, class... Range>
CLI::Option* add_one(CLI::App& command, const std::string& name, T& value, const std::string& help,
                     const char* type, Range... range) {
  const CLI::callback_t read = [&value, name, range...](const CLI::results_t& results) {
    parse_value(results.at(0), name, value, range...);
    return true;
  };
  return command.add_option(name, read, with_default(help, default_of(value)))->type_name(type);
}

template <class T, class... Range>
CLI::Option* add_several(CLI::App& command, const std::string& name, std::vector<T>& values,
                         const std::string& help, const char* type, Range... range) {
  const CLI::callback_t read = [&values, name, range...](const CLI::results_t& results) {
    values.resize(results.size());
    for (size_t i = 0; i < results.size(); ++i) parse_value(results[i], name, values[i], range...);
    return true;
  };
  return command.add_option(name, read, with_default(help, default_of(values)))
      ->type_name(type)
      ->expected(1, CLI::detail::expected_max_vector_size);
}

}  // namespace

CLI::Option* add_text(CLI::App& command, const std::string& name, std::string& value,
                      const std::string& help, const std::string& type) {
  return command.add_option(name, value, with_default(help, value))->type_name(type);
}

CLI::Option* add_text(CLI::App& command, const std::string& name, std::optional<std::string>& value,
                      const std::string& help, const std::string& type) {
  const CLI::callback_t read = [&value](const CLI::results_t& results) {
    value = results.at(0);
    return true;
  };
  return command.add_option(name, read, with_default(help, default_of(value)))->type_name(type);
}

CLI::Option* add_texts(CLI::App& command, const std::string& name, std::vector<std::string>& values,
                       const std::string& help, const std::string& type) {
  return command.add_option(name, values, help)->type_name(type);
}

CLI::Option* add_number(CLI::App& command, const std::string& name, int64_t& value,
                        const std::string& help, int64_t least, int64_t most) {
  return add_one(command, name, value, help, "N", least, most);
}

CLI::Option* add_number(CLI::App& command, const std::string& name, std::optional<int64_t>& value,
                        const std::string& help, int64_t least, int64_t most) {
  return add_one(command, name, value, help, "N", least, most);
}

CLI::Option* add_number(CLI::App& command, const std::string& name, uint64_t& value,
                        const std::string& help) {
  return add_one(command, name, value, help, "N");
}

CLI::Option* add_number(CLI::App& command, const std::string& name, double& value,
                        const std::string& help) {
  return add_one(command, name, value, help, "X");
}

CLI::Option* add_number(CLI::App& command, const std::string& name, std::optional<double>& value,
                        const std::string& help) {
  return add_one(command, name, value, help, "X");
}

CLI::Option* add_numbers(CLI::App& command, const std::string& name, std::vector<int64_t>& values,
                         const std::string& help, int64_t least, int64_t most) {
  return add_several(command, name, values, help, "N", least, most);
}

CLI::Option* add_numbers(CLI::App& command, const std::string& name, std::vector<double>& values,
                         const std::string& help) {
  return add_several(command, name, values, help, "X");
}

CLI::Option* add_list(CLI::App& command, const std::string& name, std::vector<int64_t>& values,
                      const std::string& help, int64_t least) {
  const CLI::callback_t read = [&values, name, least](const CLI::results_t& results) {
    const std::string& list = results.at(0);
    for (size_t begin = 0; begin <= list.size();) {
      const size_t end = std::min(list.find(',', begin), list.size());
      parse_value(list.substr(begin, end - begin), name, values.emplace_back(), least, kMost);
      begin = end + 1;
    }
    return true;
  };
  return command.add_option(name, read, help)->type_name("N,N,...");
}

CLI::Option* add_choice(CLI::App& command, const std::string& name, std::string& value,
                        const std::vector<std::string>& words, const std::string& help) {
  std::string list, type;
  for (const std::string& word : words) {
    const std::string shown = word.substr(0, word.find('='));
    list += (list.empty() ? "" : ", ") + shown;
    if (shown == word) type += (type.empty() ? "" : "|") + word;
  }
  const CLI::callback_t read = [&value, name, words, list](const CLI::results_t& results) {
    for (const std::string& word : words) {
      const size_t equals = word.find('=');
      if (word.substr(0, equals) != results.at(0)) continue;
      value = equals == word.npos ? word : word.substr(equals + 1);
      return true;
    }
    fail(name, ": expected one of ", list, ", got ", quoted(results[0]));
  };
  return command.add_option(name, read, with_default(help, value))->type_name(type);
}

CLI::Option* add_run(CLI::App& command, std::string& run) {
  return add_text(command, "run", run, "folder of a run, or of one of its checkpoints", "FOLDER");
}

CLI::Option* add_split(CLI::App& command, std::string& split) {
  return add_choice(command, "--split", split,
                    {"train", "valid", "test", "val=valid", "validation=valid"},
                    "part of the data");
}

CLI::Option* add_kind(CLI::App& command, std::string& kind) {
  return add_choice(command, "--text", kind, {"tokens", "raw", "txt"},
                    "kind of split files where there are several; default: the configuration's");
}

CLI::Option* add_set(CLI::App& command, std::vector<std::string>& assignments,
                     const std::string& help) {
  const CLI::callback_t read = [&assignments](const CLI::results_t& results) {
    assignments = results;
    return true;
  };
  return command.add_option("--set", read, help + ": --set key=value key=value")
      ->type_name("KEY=VALUE")
      ->expected(1, CLI::detail::expected_max_vector_size);
}

CLI::Option* add_config(CLI::App& command, std::string& config, const std::string& otherwise) {
  return add_text(command, "--config", config, "configuration (JSON)" + otherwise, "FILE");
}

CLI::Option* add_steps(CLI::App& command, std::optional<int64_t>& steps) {
  return add_number(command, "--steps", steps, "the same as --set steps=N; default: as configured");
}

CLI::Option* add_device(CLI::App& command, std::string& device) {
  return add_text(command, "--device", device, "where to compute: cpu, cuda or cuda:<index>",
                  "cpu|cuda");
}

CLI::Option* add_device(CLI::App& command, std::optional<std::string>& device,
                        const std::string& otherwise) {
  return add_text(command, "--device", device,
                  "cpu, cuda or cuda:<index>: the same as --set device=D; default: " + otherwise,
                  "cpu|cuda");
}

CLI::Option* add_json(CLI::App& command, bool& json, const std::string& help) {
  return command.add_flag("--json", json, help);
}

bool is_flag(const CLI::Option& option) { return option.get_items_expected_min() == 0; }

}  // namespace regla::app
