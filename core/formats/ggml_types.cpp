#include "core/formats/ggml_types.h"

#include <algorithm>

#include "core/common/error.h"

namespace crumb::formats {
namespace {

struct Entry {
  uint32_t id;
  GgmlType type;
};

constexpr GgmlType kQ2_0C = {"q2_0c", 512, 130, TensorType::q2_0c};
constexpr GgmlType kStq1_0 = {"stq1_0", 256, 42, std::nullopt};

// Source: ggml's type traits; readings of one id stand together.
constexpr std::array kTypes = std::to_array<Entry>({
    {0, {"f32", 1, 4, TensorType::f32}},
    {1, {"f16", 1, 2, TensorType::f16}},
    {2, {"q4_0", 32, 18, TensorType::q4_0}},
    {3, {"q4_1", 32, 20, TensorType::q4_1}},
    {6, {"q5_0", 32, 22, TensorType::q5_0}},
    {7, {"q5_1", 32, 24, TensorType::q5_1}},
    {8, {"q8_0", 32, 34, TensorType::q8_0}},
    {9, {"q8_1", 32, 36, std::nullopt}},
    {10, {"q2_k", 256, 84, TensorType::q2_k}},
    {11, {"q3_k", 256, 110, TensorType::q3_k}},
    {12, {"q4_k", 256, 144, TensorType::q4_k}},
    {13, {"q5_k", 256, 176, TensorType::q5_k}},
    {14, {"q6_k", 256, 210, TensorType::q6_k}},
    {15, {"q8_k", 256, 292, std::nullopt}},
    {16, {"iq2_xxs", 256, 66, TensorType::iq2_xxs}},
    {17, {"iq2_xs", 256, 74, TensorType::iq2_xs}},
    {18, {"iq3_xxs", 256, 98, TensorType::iq3_xxs}},
    {19, {"iq1_s", 256, 50, TensorType::iq1_s}},
    {20, {"iq4_nl", 32, 18, TensorType::iq4_nl}},
    {21, {"iq3_s", 256, 110, TensorType::iq3_s}},
    {22, {"iq2_s", 256, 82, TensorType::iq2_s}},
    {23, {"iq4_xs", 256, 136, TensorType::iq4_xs}},
    {24, {"i8", 1, 1, std::nullopt}},
    {25, {"i16", 1, 2, std::nullopt}},
    {26, {"i32", 1, 4, std::nullopt}},
    {27, {"i64", 1, 8, std::nullopt}},
    {28, {"f64", 1, 8, std::nullopt}},
    {29, {"iq1_m", 256, 56, TensorType::iq1_m}},
    {30, {"bf16", 1, 2, TensorType::bf16}},
    {34, {"tq1_0", 256, 54, TensorType::tq1_0}},
    {35, {"tq2_0", 256, 66, TensorType::tq2_0}},
    {39, {"mxfp4", 32, 17, TensorType::mxfp4}},
    {40, {"nvfp4", 64, 36, TensorType::nvfp4}},
    {40, kQ2_0C},
    {40, kStq1_0},
    {41, {"q1_0", 128, 18, std::nullopt}},
    {41, kQ2_0C},
    {42, {"q2_0", 64, 18, std::nullopt}},
    {42, kStq1_0},
});

// The readings of an id as one contiguous array.
constexpr auto kReadings = [] {
  std::array<GgmlType, kTypes.size()> readings;
  std::transform(kTypes.begin(), kTypes.end(), readings.begin(), [](const Entry& e) { return e.type; });
  return readings;
}();

// Where each type stands, under the id it is written with: the first.
constexpr size_t kNumCodecs = static_cast<size_t>(TensorType::nvfp4) + 1;
constexpr auto kPlaces = [] {
  std::array<size_t, kNumCodecs> places{};
  for (size_t i = kTypes.size(); i-- > 0;) {
    if (kTypes[i].type.codec) places[static_cast<size_t>(*kTypes[i].type.codec)] = i;
  }
  return places;
}();

const Entry& entry_of(TensorType type) {
  const Entry& entry = kTypes[kPlaces[static_cast<size_t>(type)]];
  CRUMB_ASSERT(entry.type.codec == type);
  return entry;
}

}  // namespace

const GgmlType& ggml_type(TensorType type) { return entry_of(type).type; }

uint32_t ggml_type_id(TensorType type) { return entry_of(type).id; }

std::optional<TensorType> type_from_name(std::string_view name) {
  for (const Entry& entry : kTypes) {
    if (entry.type.name == name) return entry.type.codec;
  }
  return std::nullopt;
}

std::optional<int64_t> GgmlType::bytes(int64_t elements, int64_t cols) const {
  int64_t total = 0;
  if (cols % block_size != 0 || __builtin_mul_overflow(elements / block_size, block_bytes, &total)) return std::nullopt;
  return total;
}

std::span<const GgmlType> ggml_type_readings(uint32_t id) {
  const auto same_id = [id](const Entry& e) { return e.id == id; };
  const auto first = std::find_if(kTypes.begin(), kTypes.end(), same_id);
  const auto count = std::count_if(first, kTypes.end(), same_id);
  return {kReadings.data() + (first - kTypes.begin()), static_cast<size_t>(count)};
}

}  // namespace crumb::formats
