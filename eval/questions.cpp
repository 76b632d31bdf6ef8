#include "eval/questions.h"

#include "core/common/error.h"

namespace crumb::eval {
namespace {

using Json = nlohmann::ordered_json;

/// The seed of lm-evaluation-harness if nothing is said.
constexpr uint32_t kFewshotSeed = 1234;

}  // namespace

Examples::Examples(const Task& task, const Path& path, bool is_same_file, const std::vector<std::string>& labels,
                   int64_t count)
    : task_(task), reader_(path, task.options().columns), is_same_file_(is_same_file), labels_(labels), count_(count) {
  if (count == 0) return;
  while (true) {
    const auto place = reader_.tell();
    const auto item = reader_.next();
    if (!item) break;
    places_[group_of(*item)].push_back(place);
  }
}

std::vector<Json> Examples::draw(const Item& item) {
  if (count_ == 0) return {};
  const std::string group = group_of(item);
  const auto& places = places_[group];
  const auto pool = static_cast<int64_t>(places.size());
  const int64_t wanted = count_ + (is_same_file_ ? 1 : 0);  // one more than needed, should it be the item itself
  CRUMB_CHECK(pool >= wanted, "{}: {} solved examples were asked for, {} items{} are there", reader_.path().string(),
              count_, pool, group.empty() ? "" : fmt::format(" of \"{}\"", group));
  std::vector<int64_t> drawn(static_cast<size_t>(wanted));
  if (task_.options().fewshot_sampler == "first_n") {
    for (size_t i = 0; i < drawn.size(); ++i) drawn[i] = static_cast<int64_t>(i);
  } else {
    drawn = randoms_.try_emplace(group, kFewshotSeed).first->second.sample(pool, wanted);
  }
  std::vector<Json> out;
  for (const int64_t i : drawn) {
    reader_.seek(places[static_cast<size_t>(i)]);
    Item example = *reader_.next();
    if (is_same_file_ && example.line == item.line) continue;
    if (is_same_file_ && !labels_.empty()) example.fields["label"] = labels_[static_cast<size_t>(i)];
    out.push_back(std::move(example.fields));
  }
  out.resize(static_cast<size_t>(count_));
  return out;
}

std::string Examples::group_of(const Item& item) const {
  try {
    return task_.group_of(item.fields);
  } catch (const UserError& error) {
    user_error("{}: {}", reader_.place(item), error.what());
  }
}

Questions::Questions(const Task& task, const Path& folder, int64_t num_fewshot)
    : task_(task),
      num_fewshot_(num_fewshot),
      data_(find_data(task.options().data, folder, task.name(), task.options().get)),
      reader_(data_, task.options().columns),
      labels_(read_labels(folder)),
      examples_(task, examples_path(folder), examples_path(folder) == data_, labels_, num_fewshot) {}

std::optional<AskedItem> Questions::next() {
  auto item = reader_.next();
  if (!item) {
    CRUMB_CHECK(labels_.empty() || item_count_ == std::ssize(labels_), "{} has {} items, its file of labels {}",
                data_.string(), item_count_, labels_.size());
    return std::nullopt;
  }
  ++item_count_;
  if (!labels_.empty()) {
    CRUMB_CHECK(item->index < std::ssize(labels_), "{}: there is no label for it: {} labels", place(*item),
                labels_.size());
    item->fields["label"] = labels_[static_cast<size_t>(item->index)];
  }
  const auto examples = examples_.draw(*item);
  try {
    Question question = task_.ask(item->fields, examples);
    return AskedItem{*std::move(item), std::move(question)};
  } catch (const UserError& error) {
    user_error("{}: {}", place(*item), error.what());
  }
}

Path Questions::examples_path(const Path& folder) const {
  const auto& names = task_.options().fewshot_data;
  if (num_fewshot_ == 0 || names.empty()) return data_;
  return find_data(names, folder, task_.name() + " with solved examples", task_.options().get);
}

std::vector<std::string> Questions::read_labels(const Path& folder) const {
  for (const auto& name : task_.options().labels) {
    if (const Path path = folder / name; is_file(path)) return eval::read_labels(path);
  }
  return {};
}

}  // namespace crumb::eval
