#include "core/common/markdown.h"

#include <gtest/gtest.h>

namespace crumb {
namespace {

TEST(MarkdownTable, KeepsEveryCellOneCell) {
  EXPECT_EQ(markdown_table({{"a|b", "x"}, {"two\nlines", "1"}}), "| a\\|b | x |\n|---|---:|\n| two\\nlines | 1 |\n");
}

}  // namespace
}  // namespace crumb
