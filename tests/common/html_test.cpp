#include "core/common/html.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/common/chart.h"
#include "tests/testing/html_check.h"

namespace crumb {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Html, EscapesWhatSpeaksToABrowser) {
  EXPECT_EQ(html_escaped("<a href=\"x\">'&amp;'</a>"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;amp;&#39;&lt;/a&gt;");
  EXPECT_EQ(html_escaped("two\nlines\x1b"), "two\\nlines\\x1b");
  EXPECT_EQ(html_escaped("\xffü"), "\xef\xbf\xbdü");
}

TEST(Html, PagesAreWellFormedWhateverTheyHold) {
  const std::string hostile = "</title><script>alert('\"x\"')</script>&\x01\xff]]>";
  const std::string page =
      html_page(hostile, html_table({{hostile, "n"}, {"a", hostile}}) +
                             line_chart(hostile, {{hostile, "red", {{1, 1}, {2, 3}}}}, {.x_title = hostile}) +
                             scatter_chart(hostile, hostile, {{hostile, 1, 2, 0, true}}) +
                             heat_chart({hostile, {hostile}, {hostile}, {{1.0}}}));
  EXPECT_EQ(testing::html_fault(page), "");
  EXPECT_THAT(page, Not(HasSubstr("<script")));
  EXPECT_THAT(page, Not(HasSubstr("http:")));
  EXPECT_THAT(page, HasSubstr("@media print"));
  EXPECT_THAT(page, HasSubstr("<td class='text'>a</td>"));
}

// The check can fail.
TEST(Html, FaultsAreFound) {
  EXPECT_EQ(testing::html_fault("<!DOCTYPE html>\n<a><b x='1'>t</b><c/></a>"), "");
  EXPECT_NE(testing::html_fault("<a><b></a></b>"), "");
  EXPECT_NE(testing::html_fault("<a>"), "");
  EXPECT_NE(testing::html_fault("<a>&</a>"), "");
  EXPECT_NE(testing::html_fault("<a x=1></a>"), "");
  EXPECT_NE(testing::html_fault("<a x='<'></a>"), "");
}

}  // namespace
}  // namespace crumb
