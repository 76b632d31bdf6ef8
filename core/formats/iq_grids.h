// The codebooks of ggml's IQ types. Source: iq2xxs_grid, iq2xs_grid, iq2s_grid, iq3xxs_grid, iq3s_grid, iq1s_grid and
// kvalues_iq4nl of ggml-common.h, as gguf-py's quants.py holds them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace crumb::formats {

/// N points of W coordinates.
template <size_t N, size_t W>
using IqGrid = std::array<std::array<int8_t, W>, N>;

extern const IqGrid<256, 8> kIq2XxsGrid;  // magnitudes, as those below up to kIq3SGrid: signs are stored apart
extern const IqGrid<512, 8> kIq2XsGrid;
extern const IqGrid<1024, 8> kIq2SGrid;
extern const IqGrid<256, 4> kIq3XxsGrid;
extern const IqGrid<512, 4> kIq3SGrid;
extern const IqGrid<2048, 8> kIq1SGrid;  // -1, 0 and 1; IQ1_M's too

/// What the nibbles of IQ4_NL and IQ4_XS mean.
constexpr std::array<int8_t, 16> kIq4Values = {-127, -104, -83, -65, -49, -35, -22, -10,
                                               1,    13,   25,  38,  53,  69,  89,  113};

}  // namespace crumb::formats
