#pragma once

#include <string>

namespace regla {

/// Error unless `path` is a regular file or a link to one: a pipe may never end, and what a device
/// gives is not the same twice. `expected` begins the message.
void require_regular(const std::string& path, const char* expected = "a text file");

/// The bytes of a file as they are stored. Whether they are packed with gzip or xz is recognised
/// by them, not by the name. Errors: not a regular file, other packed files and texts in UTF-16 or
/// UTF-32 (the message has the command that makes text of them), and a name in `.gz` or `.xz` for
/// something else.
std::string read_stored(const std::string& path);

/// The text in stored bytes: unpacked, and without the byte order mark of UTF-8. Errors name the
/// path they came from: packed data that is corrupt or incomplete, or holds no text.
std::string unpack(std::string stored, const std::string& path);

}  // namespace regla
