// The documents of a text file.
#pragma once

#include <string>
#include <vector>

#include "core/common/file.h"

namespace crumb::eval {

/// A .jsonl file: the "text" of every line. Any other file: its bytes cut at `separator`, which belongs to no document;
/// an empty separator: the file is one document. Documents without a byte are left out. UserError: missing, empty, a
/// line that is not {"text": ...}.
std::vector<std::string> read_documents(const Path& path, const std::string& separator);

}  // namespace crumb::eval
