// Models that are named on the command line.
#pragma once

#include <string>

#include "core/common/file.h"
#include "jobs/running_model.h"

namespace crumb::cli {

/// NAME=PATH, or a path, which is called by its last part.
inline jobs::NamedModel named_model(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals != std::string::npos && !is_there(text)) return {text.substr(0, equals), text.substr(equals + 1)};
  const Path path = text;
  return {(path.has_filename() ? path : path.parent_path()).filename().string(), path};
}

}  // namespace crumb::cli
