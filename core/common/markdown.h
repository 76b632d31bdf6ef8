// Tables as Markdown.
#pragma once

#include <string>
#include <vector>

namespace crumb {

/// Rows of cells, the first of them the header; all have as many. The first column stands on the left, the others,
/// which hold numbers, on the right. A cell stays one cell whatever it holds.
std::string markdown_table(const std::vector<std::vector<std::string>>& rows);

}  // namespace crumb
