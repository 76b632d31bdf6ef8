// A template cut into tokens: text, and what stands inside its tags. White space goes as with Jinja's trim_blocks and
// lstrip_blocks, which chat templates are written for.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/jinja/value.h"

namespace crumb::jinja {

struct Token {
  enum class Kind { text, print_begin, print_end, block_begin, block_end, name, string, number, symbol, end };
  Kind kind = Kind::end;
  std::string value{};  // text, name, string, symbol
  Value number{};
  int line = 1;
};

/// UserError "NAME:LINE: ..." for a text that is no template; `name` is that of the template.
std::vector<Token> tokenize(std::string_view source, const std::string& name);

}  // namespace crumb::jinja
