// The documents of a training text, read one after the other.
#pragma once

#include <functional>
#include <string_view>

#include "core/common/file.h"

namespace crumb::train {

/// Calls `document` for each document of a file: a .jsonl gives the "text" of its lines, any other file is cut at
/// `separator` (empty: the file is one document). Documents without a byte are left out; a view lives during its call
/// only. UserError: a missing file, a line that is not {"text": ...}, a file of chat "messages", a file without any
/// document.
void for_each_document(const Path& path, std::string_view separator,
                       const std::function<void(std::string_view)>& document);

}  // namespace crumb::train
