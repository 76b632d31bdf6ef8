// The items of a task as questions, with the solved examples before each, one after the other.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "eval/python_random.h"
#include "eval/task.h"
#include "eval/task_items.h"

namespace crumb::eval {

/// Draws solved examples for one item after the other, as lm-evaluation-harness does with its default seed.
class Examples {
 public:
  /// `is_same_file`: they are the items that are judged, with their labels; an item is no example for itself.
  Examples(const Task& task, const Path& path, bool is_same_file, const std::vector<std::string>& labels,
           int64_t count);
  /// `where` the item stands, for its errors. UserError where there are too few.
  std::vector<Solved> draw(const Item& item, const std::string& where);

 private:
  std::string group_of(const Item& item, const std::string& where) const;

  const Task& task_;
  ItemReader reader_;
  bool is_same_file_;
  const std::vector<std::string>& labels_;
  int64_t count_;
  std::vector<Solved> samples_;                                   // of the task, in place of a file
  std::map<std::string, std::vector<ItemReader::Place>> places_;  // by the group
  std::map<std::string, PythonRandom> randoms_;
};

struct AskedItem {
  Item item;
  Question question;
};

class Questions {
 public:
  /// `folder`: of the data. UserError for what is missing.
  Questions(const Task& task, const Path& folder, int64_t num_fewshot, PromptOptions prompts = {});

  const Path& data() const { return data_; }
  /// The file of solved examples: that of the items where there is no other.
  const Path& examples() const { return examples_data_; }
  /// Of the file of labels; empty: there is none.
  const Path& labels() const { return labels_path_; }
  int64_t num_fewshot() const { return num_fewshot_; }
  std::string place(const Item& item) const { return reader_.place(item); }

  /// Nothing at the end. UserError "FILE:LINE: ..." for an item that does not fit the task.
  std::optional<AskedItem> next();
  /// Whether there is one more, which is passed over.
  bool has_more() { return reader_.next().has_value(); }

 private:
  Path examples_path(const Path& folder) const;
  Path labels_path(const Path& folder) const;

  const Task& task_;
  PromptOptions prompts_;
  int64_t num_fewshot_, item_count_ = 0;
  Path data_, examples_data_;
  ItemReader reader_;
  Path labels_path_;
  std::vector<std::string> labels_;
  Examples examples_;
};

}  // namespace crumb::eval
