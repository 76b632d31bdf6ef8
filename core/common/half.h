// Floats of 16 bits, IEEE binary16.
#pragma once

#include <cstdint>

namespace crumb {

/// IEEE binary16; to_f16 rounds to nearest even. A NaN keeps its sign and the upper bits of its payload and turns
/// quiet.
float from_f16(uint16_t bits);
uint16_t to_f16(float value);
/// The same, bit for bit, by integer arithmetic: what machines without conversion instructions (F16C) use.
float portable_from_f16(uint16_t bits);
uint16_t portable_to_f16(float value);

/// One as it is stored.
struct Half {
  uint16_t bits;
};

}  // namespace crumb
