// Pages of HTML that need no other file: the frame they have in common, text and tables in it. What is written is XML,
// too, so that a parser can check it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace crumb {

/// Text as HTML, for elements and for attributes in either kind of quotes. Control characters are written out, and
/// bytes that are not UTF-8 become U+FFFD.
std::string html_escaped(std::string_view text);

/// Rows of cells (text, not HTML), the first of them the header; all have as many. The first `text_columns` stand on
/// the left and may be broken into lines, the others hold numbers. A table wider than the page is scrolled by itself.
std::string html_table(const std::vector<std::vector<std::string>>& rows, size_t text_columns = 1);

/// A whole page. `body` is HTML.
std::string html_page(const std::string& title, const std::string& body);

}  // namespace crumb
