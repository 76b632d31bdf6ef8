#include "quant/grid.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>

#include "core/common/error.h"
#include "core/common/half.h"

namespace crumb::quant {
namespace {

constexpr std::array kInitNames = {std::pair{ScaleInit::absmax, std::string_view("absmax")},
                                   std::pair{ScaleInit::absmean, std::string_view("absmean")},
                                   std::pair{ScaleInit::mse, std::string_view("mse")}};

std::vector<Grid>& grids() {
  static std::vector<Grid> all = {Grid::seq, Grid::intn, Grid::ternary, Grid::fp8};
  return all;
}

bool has_bits(Grid grid, int bits) { return bits >= grid.facts().least_bits && bits <= grid.facts().most_bits; }
bool knows(Grid grid, ScaleInit init) { return std::ranges::count(grid.facts().inits, init) > 0; }

/// "seq, int": the names of those that `fits` holds for.
template <class Fits>
std::string names_of(const Fits& fits) {
  std::vector<std::string_view> names;
  for (const Grid grid : grids()) {
    if (fits(grid)) names.push_back(grid.facts().name);
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

/// "; grid int has 2 to 8"
std::string grids_with_bits(int bits) {
  std::string out;
  for (const Grid grid : grids()) {
    if (has_bits(grid, bits)) out += fmt::format("; grid {} has {}", grid.facts().name, bits_range(grid));
  }
  return out;
}

/// "absmax and mse"
std::string inits_of(Grid grid) {
  std::vector<std::string_view> names;
  for (const ScaleInit init : grid.facts().inits) names.push_back(scale_init_name(init));
  return fmt::format("{}", fmt::join(names, " and "));
}

}  // namespace

float round_minimum(float minimum) {
  constexpr float kMost = 65504;  // of binary16
  return from_f16(to_f16(std::clamp(minimum, -kMost, kMost)));
}

void GridDefinition::nearest_codes_of_column(const float* w, int64_t n, const QuantFormat& format,
                                             const GroupScale* groups, uint8_t* codes) const {
  for (int64_t i = 0; i < n; ++i) nearest_codes(w + i, 1, format, groups[i], codes + i);
}

std::string QuantFormat::type_name() const {
  std::string name(grid.facts().name);
  const std::string number = std::to_string(bits);
  if (!name.ends_with(number)) name += number;
  return has_minima ? name + "+min" : name;
}

std::string QuantFormat::title() const {
  const GridFacts& facts = grid.facts();
  std::string out(facts.name);
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) { return std::toupper(c); });
  if (facts.least_bits != facts.most_bits) out += std::to_string(bits);
  if (facts.may_be_asymmetric) out += symmetric ? " symmetric" : has_minima ? " float zero point" : " asymmetric";
  if (has_mask) out += " pruned";
  return out;
}

std::vector<std::string> zero_point_names() { return {"none", "integer", "float"}; }

std::string zero_point_name(const QuantFormat& format) {
  return zero_point_names()[format.symmetric ? 0 : format.has_minima ? 2 : 1];
}

const std::vector<Grid>& known_grids() { return grids(); }

std::vector<std::string> grid_names() {
  std::vector<std::string> names;
  for (const Grid grid : grids()) names.emplace_back(grid.facts().name);
  return names;
}

Grid grid_from_name(std::string_view name, std::string_view where) {
  const auto found = std::ranges::find(grids(), name, [](Grid grid) { return grid.facts().name; });
  CRUMB_CHECK(found != grids().end(), "{}: grid '{}' is not known; known ones: {}", where, name,
              fmt::join(grid_names(), ", "));
  return *found;
}

AddedGrid::AddedGrid(Grid grid) : grid_(grid) {
  CRUMB_ASSERT(std::ranges::count(grid_names(), grid.facts().name) == 0);
  grids().push_back(grid);
}
AddedGrid::~AddedGrid() { std::erase(grids(), grid_); }

void check_method(const QuantFormat& format, ScaleInit init, const std::string& key) {
  const auto& [name, values, least, most, may_be_asymmetric, inits] = format.grid.facts();
  CRUMB_CHECK(has_bits(format.grid, format.bits), "{}.bits: grid {} has {} bits, got {}{}", key, name,
              bits_range(format.grid), format.bits, grids_with_bits(format.bits));
  CRUMB_CHECK(format.symmetric || may_be_asymmetric, "{}.symmetric: grid {} is symmetric; false is for grid {}", key,
              name, names_of([](Grid grid) { return grid.facts().may_be_asymmetric; }));
  CRUMB_CHECK(knows(format.grid, init), "method.init: {} is for grid {}; grid {} knows {}", scale_init_name(init),
              names_of([init](Grid grid) { return knows(grid, init); }), name, inits_of(format.grid));
}

bool has_zero(const QuantFormat& format) { return !format.has_minima && std::ranges::count(format.levels(), 0.0f) > 0; }

std::string format_obstacle(const QuantFormat& format) {
  const GridFacts& facts = format.grid.facts();
  if (!has_bits(format.grid, format.bits))
    return fmt::format("grid {} with {} bits does not exist", facts.name, format.bits);
  if (!format.symmetric && !facts.may_be_asymmetric)
    return fmt::format("grid {} is symmetric, symmetric: false does not exist", facts.name);
  if (format.group_size < 0) return fmt::format("group_size is {}", format.group_size);
  if (format.has_mask && !has_zero(format))
    return fmt::format("grid {}{} has no level 0 for pruned weights, mask: true does not exist", facts.name,
                       format.has_minima ? " with a float zero point" : "");
  return "";
}

std::string bits_range(Grid grid) {
  const GridFacts& facts = grid.facts();
  if (facts.least_bits == facts.most_bits) return std::to_string(facts.least_bits);
  return fmt::format("{} to {}", facts.least_bits, facts.most_bits);
}

ScaleInit scale_init_from_name(const std::string& name) {
  const auto found = std::ranges::find(kInitNames, name, [](const auto& entry) { return entry.second; });
  CRUMB_CHECK(found != kInitNames.end(), "method.init: unknown \"{}\"; known: {}", name,
              fmt::join(scale_init_names(), ", "));
  return found->first;
}

std::vector<std::string> scale_init_names() {
  std::vector<std::string> names;
  for (const auto& [init, name] : kInitNames) names.emplace_back(name);
  return names;
}

std::string_view scale_init_name(ScaleInit init) {
  return std::ranges::find(kInitNames, init, [](const auto& entry) { return entry.first; })->second;
}

}  // namespace crumb::quant
