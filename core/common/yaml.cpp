// YAML text as a ConfigValue.
//
// yaml-cpp's own way to a tree, YAML::LoadAll, has no bounds: after `[a],` it takes the comma, which it never gets
// past, for one empty document after the other, and a few lines of aliases stand for a tree without end. Its parser is
// bounded when it is driven one document at a time and its events are counted, which is what happens here.
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <map>
#include <optional>
#include <sstream>
#include <utility>

#include "core/common/config.h"

namespace crumb {
namespace {

constexpr size_t kMostBytes = size_t{256} << 10;  // of a text: a job has a few, and the parser takes 10 us for one
constexpr int64_t kMostValues = 100'000;
constexpr int64_t kMostTextBytes = int64_t{16} << 20;  // of all values, those of aliases included

struct Size {
  int64_t values = 0, bytes = 0;
};

/// Builds the tree of the first document from the events of the parser.
class Builder : public YAML::EventHandler {
 public:
  Builder(const std::string& text, const std::string& name, const Path& folder)
      : text_(text), name_(name), folder_(folder) {}

  ConfigValue take() {
    CRUMB_CHECK(!bad_key_, "{}: a key must be plain text", bad_key_->text());
    return std::move(root_);
  }
  ConfigMark mark_of(const YAML::Mark& mark) const {
    return {name_, mark.line + 1, mark.column + 1, folder_};  // yaml-cpp counts from 0
  }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++num_documents_ == 1) return;
    const std::string_view rest = text_from(mark);
    const ConfigMark at = mark_of(mark);
    if (rest.empty() || rest.starts_with("---"))
      user_error("{}: a second document (---) begins here; only one is read", at.text());
    user_error("{}: not valid YAML: \"{}\" after the end of the value", at.text(), rest.substr(0, 1));
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    check_no_key(mark);
    add(mark, anchor, ConfigValue());
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    check_tag(mark, tag);
    add(mark, anchor, ConfigValue::scalar(text, tag == "!"));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    CRUMB_CHECK(found != anchors_.end(), "{}: an alias stands inside its own anchor", mark_of(mark).text());
    const auto& [value, size] = found->second;
    if (value.kind != ConfigValue::Kind::scalar) check_no_key(mark);
    count(mark, size);  // before the copy is made
    place(mark, ConfigValue(value));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value /*style*/) override {
    begin(mark, tag, anchor, ConfigValue::list({}));
  }
  void OnSequenceEnd() override { end(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value /*style*/) override {
    begin(mark, tag, anchor, ConfigValue::map({}));
  }
  void OnMapEnd() override { end(); }

 private:
  /// A list or map that is not finished.
  struct Level {
    ConfigValue value;
    YAML::Mark mark;
    YAML::anchor_t anchor = 0;
    Size before;           // what stood before it
    bool has_key = false;  // of a map: the next event is the value of `key`
    std::string key;
    ConfigMark key_mark;
  };

  bool expects_key() const {
    return !levels_.empty() && levels_.back().value.kind == ConfigValue::Kind::map && !levels_.back().has_key;
  }
  /// Told at the end: a list that is not closed is first taken for a key, and that it is not closed is what counts.
  void check_no_key(const YAML::Mark& mark) {
    if (expects_key() && !bad_key_) bad_key_ = mark_of(mark);
  }
  /// "?" and "!" are the parser's own for plain and quoted values.
  void check_tag(const YAML::Mark& mark, const std::string& tag) const {
    CRUMB_CHECK(tag.empty() || tag == "?" || tag == "!", "{}: tags ({}) are not supported", mark_of(mark).text(), tag);
  }

  void count(const YAML::Mark& mark, const Size& more) {
    size_.values += more.values;
    size_.bytes += more.bytes;
    CRUMB_CHECK(size_.values <= kMostValues, "{}: more than {} values, those of aliases included", mark_of(mark).text(),
                kMostValues);
    CRUMB_CHECK(size_.bytes <= kMostTextBytes, "{}: more than {} bytes of text, those of aliases included",
                mark_of(mark).text(), kMostTextBytes);
  }

  /// A value that is complete.
  void add(const YAML::Mark& mark, YAML::anchor_t anchor, ConfigValue value) {
    const Size size{1, static_cast<int64_t>(value.text.size())};
    count(mark, size);
    value.mark = mark_of(mark);
    if (anchor != 0) anchors_[anchor] = {value, size};
    place(mark, std::move(value));
  }

  void begin(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, ConfigValue value) {
    check_tag(mark, tag);
    check_no_key(mark);
    CRUMB_CHECK(static_cast<int>(levels_.size()) < kMostConfigLevels, "{}: nested deeper than {} levels",
                mark_of(mark).text(), kMostConfigLevels);
    value.mark = mark_of(mark);
    levels_.push_back({std::move(value), mark, anchor, size_, false, "", {}});
    count(mark, {1, 0});
  }

  void end() {
    Level level = std::move(levels_.back());
    levels_.pop_back();
    // A message about a key points at the key, one about its value at the value; a missing entry of a map points at the
    // map.
    if (!level.value.entries.empty()) level.value.mark = level.value.entries[0].second.key_mark;
    if (level.anchor != 0)
      anchors_[level.anchor] = {level.value, {size_.values - level.before.values, size_.bytes - level.before.bytes}};
    place(level.mark, std::move(level.value));
  }

  void place(const YAML::Mark& mark, ConfigValue value) {
    if (levels_.empty()) {
      root_ = std::move(value);
      return;
    }
    Level& level = levels_.back();
    if (level.value.kind == ConfigValue::Kind::list) {
      level.value.items.push_back(std::move(value));
    } else if (!level.has_key) {
      CRUMB_CHECK(value.text != "<<", "{}: merge keys (<<) are not supported", mark_of(mark).text());
      level.key = value.text;
      level.key_mark = mark_of(mark);
      level.has_key = true;
    } else {
      value.key_mark = level.key_mark;
      if (value.kind == ConfigValue::Kind::null) value.mark = level.key_mark;
      level.value.entries.emplace_back(std::move(level.key), std::move(value));
      level.has_key = false;
    }
  }

  /// What stands in the text from a place on; empty where the text is not UTF-8, which the parser reads too.
  std::string_view text_from(const YAML::Mark& mark) const {
    const auto at = static_cast<size_t>(mark.pos);
    return mark.pos >= 0 && at < text_.size() ? std::string_view(text_).substr(at) : std::string_view();
  }

  const std::string& text_;
  const std::string& name_;
  const Path& folder_;
  ConfigValue root_;
  std::vector<Level> levels_;
  std::map<YAML::anchor_t, std::pair<ConfigValue, Size>> anchors_;
  std::optional<ConfigMark> bad_key_;
  Size size_;
  int num_documents_ = 0;
};

}  // namespace

ConfigValue parse_yaml_text(const std::string& text, const std::string& name, const Path& folder) {
  CRUMB_CHECK(text.size() <= kMostBytes, "{}: {} bytes of YAML; at most {} are read", name, text.size(), kMostBytes);
  Builder builder(text, name, folder);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {  // the builder throws at the start of a second one
    }
    return builder.take();
  } catch (const YAML::Exception& e) {
    user_error("{}: not valid YAML: {}", builder.mark_of(e.mark).text(), e.msg);
  }
}

}  // namespace crumb
