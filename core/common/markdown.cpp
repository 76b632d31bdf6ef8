#include "core/common/markdown.h"

#include "core/common/log.h"

namespace crumb {
namespace {

std::string cell_text(const std::string& cell) {
  std::string out;
  for (const char c : one_line(cell)) out += c == '|' ? "\\|" : std::string(1, c);
  return out;
}

}  // namespace

std::string markdown_table(const std::vector<std::vector<std::string>>& rows) {
  std::string out;
  for (size_t i = 0; i < rows.size(); ++i) {
    out += "|";
    for (const auto& cell : rows[i]) out += " " + cell_text(cell) + " |";
    out += "\n";
    if (i > 0) continue;
    out += "|---|";
    for (size_t j = 1; j < rows[0].size(); ++j) out += "---:|";
    out += "\n";
  }
  return out;
}

}  // namespace crumb
