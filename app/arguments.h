#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace regla::app {

/// Parses the arguments after the program's name. Beyond what the parser does of its own: `--name=`
/// is an empty value, lists (`--set a=1 b=2`) end where something else begins, and whatever is not
/// known is an Error that names what is nearest. Throws CLI::ParseError too.
void parse_arguments(CLI::App& program, const std::vector<std::string>& arguments);

/// The sub-commands of a command and its options that the help shows, in order.
std::vector<const CLI::App*> commands_of(const CLI::App& command);
std::vector<const CLI::Option*> options_of(const CLI::App& command);

}  // namespace regla::app
