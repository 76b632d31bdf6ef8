#include "core/common/log.h"

#include <gtest/gtest.h>

#include "core/common/config.h"
#include "tests/testing/testing.h"

namespace crumb {
namespace {

std::string printed_by(const std::function<void()>& body) {
  ::testing::internal::CaptureStderr();
  body();
  return ::testing::internal::GetCapturedStderr();
}

TEST(Log, AMessageIsOneLineWithoutControlCharacters) {
  EXPECT_EQ(one_line("a\nb\r\t\x1b[31m\x7f"), "a\\nb\\r\\t\\x1b[31m\\x7f");
  EXPECT_EQ(one_line(std::string("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(one_line("\u009b31m gr\u00fc\u00df \u2581"), "\\xc2\\x9b31m gr\u00fc\u00df \u2581");
  EXPECT_EQ(one_line("\xFF\xC2"), "\xFF\xC2");
  EXPECT_EQ(printed_by([] { log_warning("{} is odd", "a\nb"); }), "warning: a\\nb is odd\n");
}

TEST(Log, AnErrorOfSeveralMessagesHasALineForEach) {
  const UserError one("a\nb"), several(std::vector<std::string>{"first\n", "second"});
  EXPECT_STREQ(several.what(), "first\n\nsecond");
  EXPECT_EQ(printed_by([&] { print_error(one.messages()); }), "crumb: a\\nb\n");
  EXPECT_EQ(printed_by([&] { print_error(several.messages()); }), "crumb: first\\n\nsecond\n");
}

}  // namespace
}  // namespace crumb
