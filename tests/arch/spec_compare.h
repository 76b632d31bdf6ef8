// Two specs that must be the same model.
#pragma once

#include <gmock/gmock.h>

#include <string>
#include <vector>

#include "core/arch/spec_compare.h"

namespace crumb::arch {

/// Numbers may differ by `tolerance`, relative (GGUF holds them as float32), and names that are one to GGUF.
inline void expect_same_spec(DecoderSpec a, const DecoderSpec& b, double tolerance) {
  if (gguf_architecture_name(a.architecture) == gguf_architecture_name(b.architecture)) a.architecture = b.architecture;
  std::vector<std::string> found;
  for (const auto& d : differences(a, b, {tolerance, tolerance}))
    found.push_back(d.field + " is " + d.first + ", not " + d.second);
  EXPECT_THAT(found, ::testing::IsEmpty());
}

}  // namespace crumb::arch
