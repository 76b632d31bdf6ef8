#include "quant/fingerprint.h"

#include <gtest/gtest.h>

#include "tests/testing/testing.h"

namespace crumb::quant {
namespace {

using testing::TempDir;
using testing::write_file;

TEST(Fingerprint, OfTheConfigurationTellsAnotherOneUnderTheSamePath) {
  const TempDir dir;
  EXPECT_EQ(config_fingerprint(dir.path()), "");
  write_file(dir / "config.json", R"({"rope_theta": 10000})");
  const std::string before = config_fingerprint(dir.path());
  EXPECT_EQ(before.size(), 16u);
  EXPECT_EQ(config_fingerprint(dir.path()), before);
  write_file(dir / "config.json", R"({"rope_theta": 50000})");
  EXPECT_NE(config_fingerprint(dir.path()), before);
}

TEST(Fingerprint, OfTheWeightsFollowsTheirBytesAndTheNamesOfTheirFiles) {
  const TempDir dir;
  write_file(dir / "a.safetensors", "one");
  const std::string before = weights_fingerprint(dir.path());
  write_file(dir / "config.json", "{}");  // has a fingerprint of its own
  EXPECT_EQ(weights_fingerprint(dir.path()), before);
  write_file(dir / "a.safetensors", "two");
  const std::string after = weights_fingerprint(dir.path());
  EXPECT_NE(after, before);
  std::filesystem::rename(dir / "a.safetensors", dir / "b.safetensors");
  EXPECT_NE(weights_fingerprint(dir.path()), after);
}

}  // namespace
}  // namespace crumb::quant
