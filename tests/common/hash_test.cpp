#include "core/common/hash.h"

#include <gtest/gtest.h>

#include "tests/testing/testing.h"

namespace crumb {
namespace {

using testing::TempDir;
using testing::write_file;

TEST(HashBytes, DependsOnEveryByteAndTheLength) {
  const std::string text = "seventeen bytes!!";
  const uint64_t h = hash_bytes(1, text);
  for (size_t i = 0; i < text.size(); ++i) {
    std::string changed = text;
    changed[i] ^= 1;
    EXPECT_NE(hash_bytes(1, changed), h) << i;
  }
  EXPECT_NE(hash_bytes(1, text + '\0'), h);
  EXPECT_NE(hash_bytes(2, text), h);
  EXPECT_EQ(hash_bytes(1, text), h);
}

TEST(HashFileSample, OfASmallFileIsOfAllOfIt) {
  const TempDir dir;
  std::string bytes(100'000, 'a');
  write_file(dir / "a", bytes);
  bytes[54'321] = 'b';
  write_file(dir / "b", bytes);
  EXPECT_NE(hash_file_sample(0, dir / "a"), hash_file_sample(0, dir / "b"));
  EXPECT_NE(hash_file(0, dir / "a"), hash_file(0, dir / "b"));
}

TEST(HashFileSample, OfALargeFileSeesItsSizeHeadAndEnd) {
  const TempDir dir;
  const std::string bytes(4'000'000, 'a');
  write_file(dir / "whole", bytes);
  const uint64_t h = hash_file_sample(0, dir / "whole");
  for (const size_t place : {size_t{0}, size_t{60'000}, bytes.size() - 1}) {
    std::string changed = bytes;
    changed[place] = 'b';
    write_file(dir / "changed", changed);
    EXPECT_NE(hash_file_sample(0, dir / "changed"), h) << place;
  }
  write_file(dir / "longer", bytes + 'a');
  EXPECT_NE(hash_file_sample(0, dir / "longer"), h);
}

}  // namespace
}  // namespace crumb
