// Templates in the language of Jinja, as far as chat templates use it, with the results of Python's jinja2 byte for
// byte in the environment that transformers gives them: trim_blocks, lstrip_blocks, an immutable sandbox, loopcontrols,
// {% generation %}, and the filter tojson of transformers.
//
// A template comes with a model of others: whatever it is, rendering ends in a text or a UserError, in bounded time,
// memory and depth (parser.h, value.h and runtime.h name the bounds).
#pragma once

#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "core/common/error.h"
#include "core/jinja/syntax.h"

namespace crumb::jinja {

/// A template's own raise_exception(): it refuses what it was given. what(): "NAME:LINE: the template refuses: TEXT".
class Refusal : public UserError {
 public:
  explicit Refusal(const std::string& text) : UserError(text) {}
};

/// What becomes of a name or an attribute that is not there where it is printed, filtered or iterated over: nothing, as
/// chat templates rely on, or an error, as with jinja2's StrictUndefined. Tests and the filter `default` may ask for it
/// in both.
enum class MissingNames { are_empty, are_errors };

class Template {
 public:
  /// `name` is for messages. UserError "NAME:LINE: ..." for a text that is no template.
  Template(std::string_view source, std::string name, MissingNames missing = MissingNames::are_empty);

  /// `variables`: an object. `now`: the time of strftime_now; 0: the clock's. UserError "NAME:LINE: ..." for what is
  /// undefined, unsupported or beyond the bounds.
  std::string render(const nlohmann::ordered_json& variables, std::time_t now = 0) const;

 private:
  std::string name_;
  std::shared_ptr<const Body> body_;
  MissingNames missing_;
};

}  // namespace crumb::jinja
