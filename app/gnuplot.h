#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace regla::app {

/// What to do where gnuplot is not installed, for messages.
inline constexpr std::string_view kNoGnuplot =
    "gnuplot is not installed (apt-get install gnuplot-nox)";

bool has_gnuplot();

/// What gnuplot writes when it runs a script that lies in a folder; nothing where it is not
/// installed. An Error with what it says where it fails.
std::optional<std::string> drawn_file(const std::filesystem::path& folder,
                                      const std::string& script);

/// The same of a script that is in no file; `name` stands for it in messages.
std::optional<std::string> drawn(std::string_view script, const std::string& name);

/// A string of gnuplot.
std::string gnuplot_string(std::string_view text);

/// A definition of an array of strings in gnuplot.
std::string gnuplot_array(const std::string& name, const std::vector<std::string>& values);

}  // namespace regla::app
