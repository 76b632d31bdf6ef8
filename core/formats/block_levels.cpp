#include "core/formats/block_levels.h"

#include <algorithm>
#include <array>

#include "core/common/error.h"
#include "core/formats/block_codecs.h"
#include "core/formats/iq_grids.h"

namespace crumb::formats {
namespace {

/// kLeast, kLeast + kStep, ..., kMost
template <int kLeast, int kMost, int kStep = 1>
constexpr auto kSteps = [] {
  std::array<int8_t, (kMost - kLeast) / kStep + 1> steps{};
  for (size_t i = 0; i < steps.size(); ++i) steps[i] = static_cast<int8_t>(kLeast + kStep * static_cast<int>(i));
  return steps;
}();

template <size_t N>
constexpr std::array<int8_t, 2 * N> with_negatives(const std::array<int8_t, N>& magnitudes) {
  std::array<int8_t, 2 * N> all{};
  for (size_t i = 0; i < N; ++i) {
    all[N + i] = magnitudes[i];
    all[N - 1 - i] = static_cast<int8_t>(-magnitudes[i]);
  }
  return all;
}

// The coordinates of the codebooks (iq_grids.h) with their signs. Those of IQ1 are in eighths: -1, 0 and 1, shifted.
constexpr auto kIq2Levels = with_negatives<3>({8, 25, 43});
constexpr auto kIq3XxsLevels = with_negatives<8>({4, 12, 20, 28, 36, 44, 52, 62});
constexpr auto kIq1Levels = with_negatives<3>({1, 7, 9});
constexpr std::array<int8_t, 15> kE2M1Levels = {-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12};

struct Entry {
  TensorType type;
  BlockForm form;
  void (*take_apart)(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
};

constexpr std::array kEntries = std::to_array<Entry>({
    {TensorType::q4_0, {kSteps<-8, 7>, 32, false}, levels_of_q4_0},
    {TensorType::q4_1, {kSteps<0, 15>, 32, true}, levels_of_q4_1},
    {TensorType::q5_0, {kSteps<-16, 15>, 32, false}, levels_of_q5_0},
    {TensorType::q5_1, {kSteps<0, 31>, 32, true}, levels_of_q5_1},
    {TensorType::q8_0, {kSteps<-128, 127>, 32, false}, levels_of_q8_0},
    {TensorType::q2_k, {kSteps<0, 3>, 16, true}, levels_of_q2_k},
    {TensorType::q3_k, {kSteps<-4, 3>, 16, false}, levels_of_q3_k},
    {TensorType::q4_k, {kSteps<0, 15>, 32, true}, levels_of_q4_k},
    {TensorType::q5_k, {kSteps<0, 31>, 32, true}, levels_of_q5_k},
    {TensorType::q6_k, {kSteps<-32, 31>, 16, false}, levels_of_q6_k},
    {TensorType::q2_0c, {kSteps<-3, 3, 2>, 512, false}, levels_of_q2_0c},
    {TensorType::iq4_nl, {kIq4Values, 32, false}, levels_of_iq4_nl},
    {TensorType::iq4_xs, {kIq4Values, 32, false}, levels_of_iq4_xs},
    {TensorType::iq2_xxs, {kIq2Levels, 32, false}, levels_of_iq2_xxs},
    {TensorType::iq2_xs, {kIq2Levels, 16, false}, levels_of_iq2_xs},
    {TensorType::iq2_s, {kIq2Levels, 16, false}, levels_of_iq2_s},
    {TensorType::iq3_xxs, {kIq3XxsLevels, 32, false}, levels_of_iq3_xxs},
    {TensorType::iq3_s, {kSteps<-15, 15, 2>, 32, false}, levels_of_iq3_s},
    {TensorType::iq1_s, {kIq1Levels, 32, false}, levels_of_iq1_s},
    {TensorType::iq1_m, {kIq1Levels, 16, false}, levels_of_iq1_m},
    {TensorType::tq1_0, {kSteps<-1, 1>, 256, false}, levels_of_tq1_0},
    {TensorType::tq2_0, {kSteps<-1, 2>, 256, false}, levels_of_tq2_0},
    {TensorType::mxfp4, {kE2M1Levels, 32, false}, levels_of_mxfp4},
    {TensorType::nvfp4, {kE2M1Levels, 16, false}, levels_of_nvfp4},
});

const Entry* entry_of(TensorType type) {
  const auto found = std::ranges::find(kEntries, type, &Entry::type);
  return found == kEntries.end() ? nullptr : &*found;
}

}  // namespace

const BlockForm* block_form(TensorType type) {
  const Entry* entry = entry_of(type);
  return entry == nullptr ? nullptr : &entry->form;
}

void decode_levels(TensorType type, const void* data, int64_t cols, int8_t* levels, LevelGroup* groups) {
  const Entry* entry = entry_of(type);
  CRUMB_ASSERT(entry != nullptr && cols % block_size(type) == 0);
  entry->take_apart(static_cast<const uint8_t*>(data), cols / block_size(type), levels, groups);
}

}  // namespace crumb::formats
