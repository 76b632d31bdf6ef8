#include "core/common/json.h"

#include <algorithm>
#include <iterator>
#include <vector>

namespace crumb {
namespace {

using nlohmann::json;

/// Reads characters for the parser and leaves its place where the builder sees it: the events do not tell it.
class Cursor {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  explicit Cursor(const char** at) : at_(at) {}
  reference operator*() const { return **at_; }
  Cursor& operator++() {
    ++*at_;
    return *this;
  }
  bool operator==(const Cursor& other) const { return *at_ == *other.at_; }

 private:
  const char** at_;
};

/// The start of a text, not cut inside a UTF-8 character.
std::string shortened(std::string text, size_t longest) {
  if (text.size() <= longest) return text;
  while (longest > 0 && (static_cast<unsigned char>(text[longest]) & 0xC0) == 0x80) --longest;
  return text.substr(0, longest) + "...";
}

/// "[json.exception.parse_error.101] parse error at line 1, column 2: REASON" -> REASON, not longer than a line.
std::string reason_of(const json::exception& error) {
  std::string text = error.what();
  if (const size_t name = text.find("] "); name != std::string::npos) text.erase(0, name + 2);
  if (const size_t colon = text.find(": "); text.starts_with("parse error") && colon != std::string::npos)
    text.erase(0, colon + 2);
  return shortened(std::move(text), 200);  // it quotes the token, and that may be a whole unfinished string
}

/// Builds the tree from the parser's events, one at a time, so that depth and keys are judged before they cost
/// anything. (The library's own parse with a callback looks through the whole object after each of its values.)
class Builder : public nlohmann::json_sax<json> {
 public:
  Builder(std::string_view text, const std::string& name, const JsonRules& rules)
      : text_(text), name_(name), rules_(rules), at_(text.data()) {}

  json build() {
    const char* end = text_.data() + text_.size();
    json::sax_parse(Cursor(&at_), Cursor(&end), this);
    return std::move(root_);
  }

  bool null() override { return scalar(nullptr); }
  bool boolean(bool value) override { return scalar(value); }
  bool number_integer(number_integer_t value) override { return scalar(value); }
  bool number_unsigned(number_unsigned_t value) override { return scalar(value); }
  bool number_float(number_float_t value, const string_t& /*text*/) override { return scalar(value); }
  bool string(string_t& value) override { return scalar(std::move(value)); }
  bool binary(binary_t& /*value*/) override { return false; }  // of other formats than JSON
  bool start_object(size_t /*size*/) override { return begin(json::object()); }
  bool start_array(size_t /*size*/) override { return begin(json::array()); }
  bool end_object() override { return end(); }
  bool end_array() override { return end(); }

  bool key(string_t& value) override {
    Level& level = levels_.back();
    const auto found = level.container->find(value);
    level.key = std::move(value);
    level.key_end = position();
    level.is_again = found != level.container->end();
    if (!level.is_again) return true;
    if (rules_.unique_keys) fail(level.key_end, fmt::format("\"{}\" is given twice", level.key));
    level.earlier = std::move(*found);
    return true;
  }

  bool parse_error(size_t position, const std::string& /*token*/, const json::exception& error) override {
    fail(position, "not valid JSON: " + reason_of(error));
  }

 private:
  /// An object or list that is not finished.
  struct Level {
    json* container;  // its parent does not grow before it is finished
    std::string key{};
    size_t key_end = 0;
    bool is_again = false;  // the key had a value already
    json earlier{};
  };

  json* place(json value) {
    if (levels_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    const Level& level = levels_.back();
    if (level.container->is_array()) {
      level.container->push_back(std::move(value));
      return &level.container->back();
    }
    json& slot = (*level.container)[level.key];
    slot = std::move(value);
    return &slot;
  }

  bool scalar(json value) {
    check_same(*place(std::move(value)));
    return true;
  }

  bool begin(json value) {
    if (static_cast<int>(levels_.size()) >= rules_.most_levels)
      fail(position(), fmt::format("nested deeper than {} levels", rules_.most_levels));
    levels_.push_back({place(std::move(value))});
    return true;
  }

  bool end() {
    const json* finished = levels_.back().container;
    levels_.pop_back();
    check_same(*finished);
    return true;
  }

  /// Readers take the first or the last of two values of a key; which, is told only by where they differ.
  void check_same(const json& value) {
    if (levels_.empty() || !levels_.back().is_again) return;
    Level& level = levels_.back();
    if (value != level.earlier)
      fail(level.key_end, fmt::format("\"{}\" is given twice, as {} and as {}", level.key, json_excerpt(level.earlier),
                                      json_excerpt(value)));
    level.is_again = false;
  }

  /// Characters read so far.
  size_t position() const { return static_cast<size_t>(at_ - text_.data()); }

  [[noreturn]] void fail(size_t position, const std::string& what) const {
    const std::string_view before = text_.substr(0, std::min(std::max<size_t>(position, 1) - 1, text_.size()));
    const auto line = rules_.first_line + std::count(before.begin(), before.end(), '\n');
    const std::string_view row = before.substr(before.rfind('\n') + 1);  // npos + 1 == 0
    const auto column = (row.size() == before.size() ? rules_.first_column : 1) +
                        std::count_if(row.begin(), row.end(), [](char c) { return (c & 0xC0) != 0x80; });
    user_error("{}:{}:{}: {}", name_, line, column, what);
  }

  std::string_view text_;
  const std::string& name_;
  const JsonRules& rules_;
  const char* at_;  // what the parser reads next
  json root_;
  std::vector<Level> levels_;
};

}  // namespace

json parse_json(std::string_view text, const std::string& name, const JsonRules& rules) {
  CRUMB_CHECK(static_cast<int64_t>(text.size()) <= kMostJsonBytes,
              "{}:{}: a JSON document of {} bytes; at most {} are read", name, rules.first_line, text.size(),
              kMostJsonBytes);
  return Builder(text, name, rules).build();
}

json read_json(const Path& path) {
  const MappedFile file(path);
  return parse_json({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()}, path.string());
}

std::string json_excerpt(const json& value) {
  if (value.is_object()) return value.empty() ? "{}" : "an object";
  if (value.is_array()) return value.empty() ? "[]" : "a list";
  return shortened(dump_json(value), 60);
}

JsonObject::JsonObject(const json& object, std::string where) : object_(object), where_(std::move(where)) {
  CRUMB_CHECK(object.is_object(), "{}: not a JSON object", where_);
}

const json* JsonObject::find(const char* key) const {
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

JsonObject JsonObject::inner(const char* key) const {
  static const json empty = json::object();
  const json* value = find(key);
  return {value == nullptr ? empty : *value, where_ + ": " + key};
}

namespace json_detail {

void wrong_type(const json& value, std::string_view where, std::string_view key, const char* expected) {
  user_error("{}: {} must be {}, not {}", where, key, expected, json_excerpt(value));
}

void out_of_range(const json& value, std::string_view where, std::string_view key) {
  user_error("{}: {} is {}, which is out of range", where, key, json_excerpt(value));
}

}  // namespace json_detail
}  // namespace crumb
