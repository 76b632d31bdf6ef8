// Python's str over UTF-8: positions, lengths and classes count characters, not bytes.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace crumb::jinja {

/// Characters of a well-formed text.
int64_t length_of(std::string_view text);
/// The characters, each as its bytes.
std::vector<std::string_view> characters_of(std::string_view text);

/// str.isspace() of one character.
bool is_python_space(uint32_t character);

enum class Ends { left, right, both };
/// str.strip(chars): white space without `chars`.
std::string_view strip(std::string_view text, Ends ends, std::optional<std::string_view> chars = std::nullopt);

/// str.split() without a separator, at white space; `most` < 0: no limit. From the left.
std::vector<std::string_view> split_words(std::string_view text, int64_t most);
/// str.split(separator, most), or rsplit. `separator` must not be empty.
std::vector<std::string_view> split(std::string_view text, std::string_view separator, int64_t most, bool from_right);
/// str.splitlines(keepends).
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);

/// What these give points into `text`, so a temporary string, gone before a loop over its parts begins, is no argument.
template <std::same_as<std::string> Text>
void characters_of(Text&&) = delete;
template <std::same_as<std::string> Text>
void split_words(Text&&, int64_t) = delete;
template <std::same_as<std::string> Text>
void split(Text&&, std::string_view, int64_t, bool) = delete;
template <std::same_as<std::string> Text>
void split_lines(Text&&, bool) = delete;

/// First (last) place of `part` in bytes, npos where it is nowhere. Linear in both.
size_t find(std::string_view text, std::string_view part, size_t from = 0);
size_t find_last(std::string_view text, std::string_view part);
int64_t count(std::string_view text, std::string_view part);

/// Mappings of one character to one, and U+00DF to "SS", U+0130 to two, the final sigma. Other characters whose
/// upper case is several (ligatures, Greek with iota) stay as they are.
std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
/// str.capitalize()
std::string capitalized(std::string_view text);
/// The filter `title`: words begin after white space and one of - ( { [ <.
std::string titled(std::string_view text);

/// str.isalpha() and so on: whether there are characters and all are of the class.
bool all_are(std::string_view text, const std::function<bool(uint32_t)>& is_in_class);
bool is_letter(uint32_t character);
bool is_decimal(uint32_t character);  // str.isdecimal()
/// str.islower(), str.isupper(): cased characters are there, all of the one case.
bool is_lower(std::string_view text);
bool is_upper(std::string_view text);

/// repr(str)
std::string text_repr(std::string_view text);
/// repr(float)
std::string float_text(double value);

}  // namespace crumb::jinja
