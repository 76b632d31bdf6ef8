// From the text of a template to its tree.
#pragma once

#include <string>
#include <string_view>

#include "core/jinja/syntax.h"

namespace crumb::jinja {

/// Blocks and expressions inside each other.
inline constexpr int kMostSyntaxLevels = 150;

/// The language of Jinja 3.1 with its extension loopcontrols and the block `generation`, without blocks that need other
/// templates (extends, block, include, import). UserError "NAME:LINE: ...".
Body parse(std::string_view source, const std::string& name);

}  // namespace crumb::jinja
