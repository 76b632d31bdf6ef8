#include "ptq/budget.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/common/error.h"
#include "core/common/log.h"
#include "core/common/quantity.h"
#include "ptq/budget_solver.h"
#include "quant/codes_parts.h"

namespace crumb::ptq {
namespace {

std::string key_of(size_t choice) { return fmt::format("budget.choices[{}]", choice); }

/// Those of the job, or the usual widths that the grid has.
std::vector<BudgetFormat> choices_of(const BudgetOptions& options, const quant::LinearFormats& linears) {
  if (!options.choices.empty()) return options.choices;
  const auto& facts = linears.format().grid.facts();
  std::vector<BudgetFormat> out;
  for (const int64_t bits : {2, 3, 4, 8}) {
    if (bits < facts.least_bits || bits > facts.most_bits) continue;
    out.emplace_back().bits = bits;
  }
  CRUMB_CHECK(out.size() > 1,
              "budget.choices: grid {} leaves nothing to choose; name formats, such as budget.choices=[2,3,4,8] with "
              "method.grid=int",
              facts.name);
  return out;
}

int64_t bytes_of(const arch::TensorDesc& desc, const quant::QuantFormat& format) {
  return quant::codes_bytes(desc.rows(), desc.cols(), format);
}

std::vector<std::vector<BudgetChoice>> items_of(const BudgetFrame& frame,
                                                const std::vector<std::vector<double>>* losses) {
  std::vector<std::vector<BudgetChoice>> items;
  for (size_t i = 0; i < frame.linears.size(); ++i) {
    auto& item = items.emplace_back();
    const BudgetLinear& linear = frame.linears[i];
    for (size_t k = 0; k < linear.formats.size(); ++k)
      item.push_back({bytes_of(linear.desc, linear.formats[k]), losses == nullptr ? 0 : (*losses)[i][k]});
  }
  return items;
}

/// What the linears to choose for may take.
int64_t bytes_left(const BudgetOptions& options, const BudgetFrame& frame, int64_t fixed_weights) {
  if (options.size) return *parse_bytes(*options.size) - frame.kept_bytes - frame.fixed_bytes;
  const double bits = *options.bits_per_weight * static_cast<double>(frame.weights + fixed_weights);
  return static_cast<int64_t>(std::floor(bits / 8)) - frame.fixed_bytes;
}

void check_range(const BudgetOptions& options, const BudgetFrame& frame, int64_t fixed_weights) {
  const auto whole = [&](int64_t bytes) {  // in terms of the key
    if (options.size) return format_bytes(bytes + frame.kept_bytes + frame.fixed_bytes);
    return fmt::format("{:.4g}", 8.0 * static_cast<double>(bytes + frame.fixed_bytes) /
                                     static_cast<double>(frame.weights + fixed_weights));
  };
  const std::string asked = options.size ? "budget.size: " + *options.size
                                         : "budget.bits_per_weight: " + format_number(*options.bits_per_weight);
  const std::string rest =
      fmt::format("{} of what is not quantized{}", format_bytes(frame.kept_bytes),
                  frame.fixed_bytes == 0
                      ? ""
                      : fmt::format(" and {} of linears that method.overrides names", format_bytes(frame.fixed_bytes)));
  CRUMB_CHECK(frame.bytes >= frame.least_bytes,
              "{} is less than any of budget.choices gives: the smallest and nearest is {}, the largest {}{}", asked,
              whole(frame.least_bytes), whole(frame.most_bytes), options.size ? ", with " + rest : "");
  if (frame.bytes > frame.most_bytes)
    log_warning("{} is more than the dearest of budget.choices takes, {}; the rest stays unused", asked,
                whole(frame.most_bytes));
}

}  // namespace

void BudgetOptions::check() const {
  CRUMB_CHECK(!bits_per_weight || !size, "budget: bits_per_weight and size are both given; one of them decides");
  CRUMB_CHECK(is_asked() || choices.empty(),
              "budget.choices: for what budget? give budget.bits_per_weight or budget.size");
  CRUMB_CHECK(!size || parse_bytes(*size).has_value(),
              "budget.size: \"{}\" is no size; give one such as 900MB or 1.5GB", size.value_or(""));
}

NamedList<quant::FormatOverride> budget_candidates(const BudgetOptions& options, const quant::LinearFormats& linears) {
  NamedList<quant::FormatOverride> out;
  const auto choices = choices_of(options, linears);
  for (size_t k = 0; k < choices.size(); ++k) out.emplace_back(key_of(k), choices[k]);
  return out;
}

BudgetFrame budget_frame(const BudgetOptions& options, const quant::LinearFormats& linears,
                         const arch::DecoderSpec& spec, int64_t kept_bytes) {
  BudgetFrame frame{.choices = choices_of(options, linears), .linears = {}, .kept_bytes = kept_bytes};
  int64_t fixed_weights = 0;
  const auto usual = linears.formats_of(spec);
  for (const auto& desc : arch::tensor_table(spec)) {
    const auto found = usual.find(desc.hf_name);
    if (found == usual.end()) continue;
    const std::string module = desc.module_name();
    if (linears.is_overridden(module)) {
      frame.fixed_bytes += bytes_of(desc, found->second);
      fixed_weights += desc.elements();
      continue;
    }
    BudgetLinear& linear = frame.linears.emplace_back(BudgetLinear{desc, {}});
    frame.weights += desc.elements();
    for (size_t k = 0; k < frame.choices.size(); ++k) {
      const auto format = linears.format(frame.choices[k], key_of(k));
      quant::check_group_size(format.group_size, desc.cols(), module, key_of(k));
      linear.formats.push_back(format);
    }
  }
  CRUMB_CHECK(!frame.linears.empty(), "budget: method.overrides leaves no linear to choose bits for");
  frame.bytes = bytes_left(options, frame, fixed_weights);
  const auto items = items_of(frame, nullptr);
  frame.least_bytes = least_bytes(items);
  frame.most_bytes = most_bytes(items);
  check_range(options, frame, fixed_weights);
  return frame;
}

NamedList<quant::FormatOverride> BudgetReport::overrides(const quant::LinearFormats& linears) const {
  NamedList<quant::FormatOverride> out;
  for (const Line& line : lines) {
    if (line.format != linears.format()) out.emplace_back(line.module, line.change);
  }
  return out;
}

std::string BudgetReport::overrides_yaml(const quant::LinearFormats& linears) const {
  struct Pasted {
    NamedList<quant::FormatOverride> overrides;
    void visit(ConfigWriter& v) { v.field("overrides", overrides, ""); }
  };
  ConfigWriter writer;
  Pasted pasted{overrides(linears)};
  pasted.visit(writer);
  return to_yaml(writer.take());
}

BudgetReport choose_for_budget(const BudgetFrame& frame, const std::vector<std::vector<double>>& losses,
                               const std::string& sensitivity) {
  const auto items = items_of(frame, &losses);
  const auto solution = solve_budget(items, frame.bytes);
  CRUMB_ASSERT(solution.has_value());  // budget_frame() looked
  BudgetReport report{.sensitivity = sensitivity,
                      .lines = {},
                      .budget_bytes = frame.bytes,
                      .used_bytes = solution->bytes,
                      .loss = solution->loss,
                      .bound = solution->bound};
  for (size_t i = 0; i < items.size(); ++i) {
    const size_t chosen = solution->choices[i];
    const BudgetLinear& linear = frame.linears[i];
    BudgetReport::Line line{.module = linear.desc.module_name(),
                            .format = linear.formats[chosen],
                            .change = frame.choices[chosen],
                            .bytes = items[i][chosen].bytes,
                            .loss = items[i][chosen].loss};
    for (size_t k = 0; k < items[i].size(); ++k) {
      const int64_t more = items[i][k].bytes - line.bytes;
      if (items[i][k].loss >= line.loss || (line.next && more >= line.next->bytes)) continue;
      line.next = {.format = linear.formats[k], .bytes = more, .loss = items[i][k].loss};
    }
    report.lines.push_back(std::move(line));
  }
  return report;
}

}  // namespace crumb::ptq
