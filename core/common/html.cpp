#include "core/common/html.h"

#include <fmt/format.h>

#include "core/common/json.h"
#include "core/common/log.h"

namespace crumb {
namespace {

/// Wide things (tables, charts) scroll in boxes of their own, so the page is never wider than a phone; on paper there
/// is nothing to scroll, so they shrink.
constexpr const char* kStyle = R"(
body{font:15px/1.45 sans-serif;max-width:1000px;margin:1.5em auto;padding:0 1em;color:#222;overflow-wrap:anywhere}
h1{font-size:1.5em} h2{font-size:1.2em;margin:1.8em 0 .4em} h3{font-size:1em;margin:1.4em 0 .3em}
.wide{overflow-x:auto;margin:.5em 0}
table{border-collapse:collapse;font-size:13px}
th,td{padding:.25em .6em;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap;vertical-align:top}
th{border-bottom:2px solid #999} .text{text-align:left;white-space:normal;min-width:7em;overflow-wrap:break-word}
figure{margin:1.2em 0} figcaption{font-weight:bold} small{font-weight:normal;margin-left:1em}
svg{width:100%;min-width:640px;display:block} polyline{fill:none;stroke-width:1.5}
.grid{stroke:#ddd} text{font:11px sans-serif;fill:#555} .y{text-anchor:end} .x{text-anchor:middle}
pre{font-size:12px;white-space:pre-wrap;background:#f5f5f5;padding:.6em} .note{color:#555;font-size:13px}
.pass{color:#1a6b2c} .fail{color:#b00020;font-weight:bold}
@media (max-width:600px){body{margin:.5em auto} h1{font-size:1.25em}}
@media print{body{max-width:none;margin:0;font-size:11px} svg{min-width:0} figure,tr{break-inside:avoid}
.wide{overflow:visible} table{font-size:8px} th,td{white-space:normal;overflow-wrap:normal;padding:.2em .4em}
.note{font-size:10px} h2,h3{break-after:avoid}}
)";

}  // namespace

std::string html_escaped(std::string_view text) {
  // Through JSON and back: what it writes is UTF-8 whatever it was given.
  const auto valid = nlohmann::json::parse(dump_json(nlohmann::json(std::string(text)))).get<std::string>();
  std::string out;
  for (const char c : one_line(valid)) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string html_table(const std::vector<std::vector<std::string>>& rows, size_t text_columns) {
  std::string out = "<div class='wide'><table>\n";
  for (size_t i = 0; i < rows.size(); ++i) {
    const char* cell = i == 0 ? "th" : "td";
    out += "<tr>";
    for (size_t j = 0; j < rows[i].size(); ++j)
      out += fmt::format("<{0}{1}>{2}</{0}>", cell, j < text_columns ? " class='text'" : "", html_escaped(rows[i][j]));
    out += "</tr>\n";
  }
  return out + "</table></div>\n";
}

std::string html_page(const std::string& title, const std::string& body) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'/><meta name='viewport' "
      "content='width=device-width, initial-scale=1'/><title>{0}</title><style>{1}</style></head><body>\n<h1>{0}</h1>\n"
      "{2}</body></html>\n",
      html_escaped(title), kStyle, body);
}

}  // namespace crumb
