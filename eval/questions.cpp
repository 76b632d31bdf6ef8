#include "eval/questions.h"

#include "core/common/error.h"

namespace crumb::eval {
namespace {

/// The seed of lm-evaluation-harness if nothing is said.
constexpr uint32_t kFewshotSeed = 1234;

/// What `body` gives; its errors begin with the place.
template <class Body>
auto at_place(const std::string& place, const Body& body) {
  try {
    return body();
  } catch (const UserError& error) {
    user_error("{}: {}", place, error.what());
  }
}

/// That of the file of labels, where there is one.
void set_label(Item& item, const std::vector<std::string>& labels, const std::string& place) {
  if (labels.empty()) return;
  CRUMB_CHECK(item.index < std::ssize(labels), "{}: there is no label for it: {} labels", place, labels.size());
  const std::string& label = labels[static_cast<size_t>(item.index)];
  const auto own = item.fields.find("label");
  const std::string text = own == item.fields.end() ? label : own->is_string() ? own->get<std::string>() : own->dump();
  CRUMB_CHECK(text == label, "{}: its label is {}, in the file of labels \"{}\"; remove one of them", place,
              own->dump(), label);
  item.fields["label"] = label;
}

}  // namespace

Examples::Examples(const Task& task, const Path& path, bool is_same_file, const std::vector<std::string>& labels,
                   int64_t count)
    : task_(task), reader_(path, task.options().columns), is_same_file_(is_same_file), labels_(labels), count_(count) {
  if (count == 0) return;
  if (!task.options().fewshot_samples.empty()) {
    samples_ = task.samples();
    CRUMB_CHECK(std::ssize(samples_) >= count, "{}: {} solved examples were asked for, {} samples are there",
                task.name(), count, samples_.size());
    samples_.resize(static_cast<size_t>(count));
    return;
  }
  while (true) {
    const auto place = reader_.tell();
    const auto item = reader_.next();
    if (!item) break;
    places_[group_of(*item, reader_.place(*item))].push_back(place);
  }
}

std::vector<Solved> Examples::draw(const Item& item, const std::string& where) {
  if (count_ == 0) return {};
  if (!samples_.empty()) return samples_;
  const std::string group = group_of(item, where);
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
  std::vector<Solved> out;
  for (const int64_t i : drawn) {
    if (std::ssize(out) == count_) break;
    reader_.seek(places[static_cast<size_t>(i)]);
    Item example = *reader_.next();
    if (is_same_file_ && example.line == item.line) continue;
    if (is_same_file_) set_label(example, labels_, reader_.place(example));
    out.push_back(at_place(reader_.place(example), [&] { return task_.solved(example.fields); }));
  }
  return out;
}

std::string Examples::group_of(const Item& item, const std::string& where) const {
  return at_place(where, [&] { return task_.group_of(item.fields); });
}

Questions::Questions(const Task& task, const Path& folder, int64_t num_fewshot, PromptOptions prompts)
    : task_(task),
      prompts_(std::move(prompts)),
      num_fewshot_(num_fewshot),
      data_(find_data(task.options().data, folder, task.name(), task.options().get)),
      examples_data_(examples_path(folder)),
      reader_(data_, task.options().columns),
      labels_path_(labels_path(folder)),
      labels_(labels_path_.empty() ? std::vector<std::string>() : read_labels(labels_path_)),
      examples_(task, examples_data_, examples_data_ == data_, labels_, num_fewshot) {}

std::optional<AskedItem> Questions::next() {
  auto item = reader_.next();
  if (!item) {
    CRUMB_CHECK(labels_.empty() || item_count_ == std::ssize(labels_), "{} has {} items, its file of labels {}",
                data_.string(), item_count_, labels_.size());
    return std::nullopt;
  }
  ++item_count_;
  const std::string where = place(*item);
  set_label(*item, labels_, where);
  const auto examples = examples_.draw(*item, where);
  Question question = at_place(where, [&] { return task_.ask(item->fields, examples, prompts_); });
  return AskedItem{*std::move(item), std::move(question)};
}

Path Questions::examples_path(const Path& folder) const {
  const auto& names = task_.options().fewshot_data;
  if (num_fewshot_ == 0 || names.empty()) return data_;
  return find_data(names, folder, task_.name() + " with solved examples", task_.options().get);
}

Path Questions::labels_path(const Path& folder) const {
  for (const auto& name : task_.options().labels) {
    if (Path path = folder / name; is_file(path)) return path;
  }
  return {};
}

}  // namespace crumb::eval
