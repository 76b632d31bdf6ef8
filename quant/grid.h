// What the codes of a quantized matrix mean. All that is particular to one grid stands in its own file (seq_grid.cpp,
// int_grid.cpp, ternary_grid.cpp, fp8_grid.cpp); everything else asks the grid.
//
//   weight of a code = (level of the code - zero point) * scale + minimum, the last three those of the row or group
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace crumb::quant {

struct QuantFormat;

/// How the first scale of a group is found.
enum class ScaleInit { absmax, absmean, mse };

/// What the weights of a group share.
struct GroupScale {
  float scale = 0;         // rounded by kernels::round_scale
  int32_t zero_point = 0;  // where the format has zero points
  float minimum = -0.0f;   // where the format has minima, rounded by round_minimum; elsewhere -0, which changes no sum

  /// Each operation rounded to float32. The product is exact, so a fused multiply-add gives the same.
  float value(float level) const { return (level - static_cast<float>(zero_point)) * scale + minimum; }
  bool operator==(const GroupScale&) const = default;
};

/// The nearest number that binary16 holds, finite: minima of groups, so that every file format has them.
float round_minimum(float minimum);

/// What can be said of a grid without computing.
struct GridFacts {
  std::string_view name;             // method.grid, quantization_config: "seq"
  std::string_view values;           // for people: "{-1.5, -0.5, 0.5, 1.5} * scale"
  int least_bits, most_bits;         // a code; 8 at most
  bool may_be_asymmetric;            // symmetric: false, a zero point or a minimum a group
  std::span<const ScaleInit> inits;  // those find_scale() knows, the best last
};

class GridDefinition {
 public:
  constexpr explicit GridDefinition(const GridFacts& facts) : facts_(facts) {}
  GridDefinition(const GridDefinition&) = delete;
  GridDefinition& operator=(const GridDefinition&) = delete;

  const GridFacts& facts() const { return facts_; }
  /// Levels at scale 1 of codes 0, 1, ..., ascending: at most 2^bits. Asymmetric: before the zero point is subtracted
  /// or the minimum added.
  virtual std::vector<float> levels(const QuantFormat& format) const = 0;
  /// First scale of the n weights of a group, n > 0. `init` is one of facts().inits. ScaleInit::mse minimises
  /// sum importance * (w - value)^2, importance [n] >= 0 (null: all 1; all 0: any scale); the others do not look at it.
  virtual GroupScale find_scale(const float* w, int64_t n, const QuantFormat& format, ScaleInit init,
                                const float* importance = nullptr) const = 0;
  /// Codes of the levels next to the n weights.
  virtual void nearest_codes(const float* w, int64_t n, const QuantFormat& format, const GroupScale& group,
                             uint8_t* codes) const = 0;
  /// The same for weights of which each has a scale of its own (a column of a matrix): groups [n].
  virtual void nearest_codes_of_column(const float* w, int64_t n, const QuantFormat& format, const GroupScale* groups,
                                       uint8_t* codes) const;

 protected:
  ~GridDefinition() = default;

 private:
  GridFacts facts_;
};

/// Which grid: grids are told apart by identity.
class Grid {
 public:
  static const Grid seq;   // kernels/seq.h
  static const Grid intn;  // integers of 2 to 8 bits
  static const Grid ternary;
  static const Grid fp8;  // E4M3

  constexpr Grid(const GridDefinition& definition) : definition_(&definition) {}
  const GridDefinition* operator->() const { return definition_; }
  const GridFacts& facts() const { return definition_->facts(); }
  bool operator==(const Grid&) const = default;

 private:
  const GridDefinition* definition_;
};

struct QuantFormat {
  Grid grid = Grid::seq;
  int bits = 2;
  bool symmetric = true;    // false: a zero point a group, an integer
  int64_t group_size = 0;   // 0: one scale a row
  bool has_mask = false;    // a bit a weight beside the codes says which are pruned
  bool has_minima = false;  // with symmetric = false: instead, a float zero point, held as the weight of level 0
  int64_t groups(int64_t cols) const { return group_size == 0 ? 1 : cols / group_size; }
  int64_t group_cols(int64_t cols) const { return group_size == 0 ? cols : group_size; }
  bool has_zero_points() const { return !symmetric && !has_minima; }
  std::vector<float> levels() const { return grid->levels(*this); }
  std::string type_name() const;  // "seq2", "int4+min"; "fp8" has its bits in the name
  std::string title() const;      // "SEQ", "INT4 symmetric pruned", "INT4 asymmetric", "INT4 float zero point"
  bool operator==(const QuantFormat&) const = default;
};

/// The kinds of zero point: "none" (symmetric), "integer", "float" (has_minima).
std::vector<std::string> zero_point_names();
std::string zero_point_name(const QuantFormat& format);

/// Every grid there is, the default first.
const std::vector<Grid>& known_grids();
std::vector<std::string> grid_names();
/// UserError that begins with `where` and names the known ones.
Grid grid_from_name(std::string_view name, std::string_view where);

/// Makes a grid of a program known while it lives. Not for use beside threads that read models.
class AddedGrid {
 public:
  explicit AddedGrid(Grid grid);
  ~AddedGrid();
  AddedGrid(const AddedGrid&) = delete;
  AddedGrid& operator=(const AddedGrid&) = delete;

 private:
  Grid grid_;
};

/// UserError for bits or symmetry that the grid does not have, in terms of the keys under `key`, and for first scales
/// (`method.init`) that it does not know.
void check_method(const QuantFormat& format, ScaleInit init, const std::string& key = "method");
/// Whether a weight can be exactly 0 whatever the scale: in a format with zero points each of them is a level.
bool has_zero(const QuantFormat& format);
/// Why there is no such format, in terms of quantization_config; empty if there is.
std::string format_obstacle(const QuantFormat& format);

/// "2" or "2 to 8"
std::string bits_range(Grid grid);

ScaleInit scale_init_from_name(const std::string& name);
std::string_view scale_init_name(ScaleInit init);
std::vector<std::string> scale_init_names();

}  // namespace crumb::quant
