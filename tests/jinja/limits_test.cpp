// Templates that would take all time, memory or stack end in an error instead.
#include <gmock/gmock.h>

#include "core/jinja/template.h"
#include "tests/testing/testing.h"

namespace crumb::jinja {
namespace {

using ::testing::HasSubstr;

std::string error_of_template(const std::string& source) {
  return testing::error_of([&] { Template(source, "t").render(nlohmann::ordered_json::object()); });
}

std::string repeated(const std::string& part, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += part;
  return out;
}

TEST(JinjaLimits, LoopsEnd) {
  const std::string loop = "{% for i in range(100000) %}";
  EXPECT_THAT(error_of_template(loop + loop + "{% endfor %}{% endfor %}"), HasSubstr("more than 30000000 steps"));
  EXPECT_THAT(error_of_template("{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}"),
              HasSubstr("nests deeper than 400"));
}

TEST(JinjaLimits, TextsDoNotGrowWithoutEnd) {
  EXPECT_THAT(error_of_template("{{ 'ab' * 99999999 }}"), HasSubstr("a text of more than 32 MB"));
  EXPECT_THAT(error_of_template("{{ 'ab' * 99999999999999 }}"), HasSubstr("a text of more than 32 MB"));
  EXPECT_THAT(error_of_template(
                  "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"),
              HasSubstr("a text of more than 32 MB"));
  EXPECT_THAT(error_of_template("{% set x = 'a' * 100000 %}{{ x | replace('a', x) }}"),
              HasSubstr("a text of more than 32 MB"));
  EXPECT_THAT(error_of_template("{{ 'a' | center(999999999) }}"), HasSubstr("a text of more than 32 MB"));
  EXPECT_THAT(error_of_template("{{ [1] | tojson(indent=999999999) }}"), HasSubstr("a text of more than 32 MB"));
  EXPECT_THAT(error_of_template("{{ '%999999999d' % 1 }}"), HasSubstr("a width of more than 10000"));
}

TEST(JinjaLimits, WorkOnLongTextsIsCounted) {
  const std::string begin = "{% set a = 'a' * 20000000 %}{% for i in range(100000) %}", end = "{% endfor %}";
  for (const char* work : {"a.count('b')", "a.rfind('b')", "a.rsplit('b')", "a.find('b')", "'b' in a"})
    EXPECT_THAT(error_of_template(begin + "{% set x = " + work + " %}" + end), HasSubstr("more than 30000000 steps"))
        << work;
  EXPECT_THAT(error_of_template("{% set a = 'a' * 10000000 %}{{ a.rfind('b' ~ a[5000000:]) }}"), ::testing::IsEmpty());
  EXPECT_THAT(error_of_template("{{ ['a' * 30000000] * 100 }}"), HasSubstr("more than 4000000 values"));
}

TEST(JinjaLimits, ListsDoNotGrowOrNestWithoutEnd) {
  EXPECT_THAT(error_of_template("{{ [1] * 99999999 }}"), HasSubstr("a list of more than 4000000 values"));
  const std::string grow = "{% set ns = namespace(x=[1]) %}{% for i in range(9999) %}{% set ns.x = ";
  EXPECT_THAT(error_of_template(grow + "[ns.x] %}{% endfor %}"), HasSubstr("deeper than 150 levels"));
  EXPECT_THAT(error_of_template(grow + "[ns.x, ns.x] %}{% endfor %}"),
              HasSubstr("a list or dict of more than 4000000 values"));
  EXPECT_THAT(error_of_template(grow + "[ns.x.copy] %}{% endfor %}"), HasSubstr("deeper than 150 levels"));
  EXPECT_THAT(error_of_template(grow + "joiner(ns.x) %}{% endfor %}"), HasSubstr("deeper than 150 levels"));
  EXPECT_THAT(error_of_template("{% set ns = namespace(x=1) %}{% for i in range(999) %}{% for j in [ns.x] %}"
                                "{% set ns.x = loop %}{% endfor %}{% endfor %}"),
              HasSubstr("deeper than 150 levels"));
  EXPECT_THAT(error_of_template("{{ 'a' | map(*(['map'] * 25000)) | list }}"), HasSubstr("nests deeper than 400"));
}

TEST(JinjaLimits, ComparisonsAreCounted) {
  const std::string lists = "{% set a = [0] * 100000 %}{% set b = [0] * 100000 %}",
                    rounds = "{% for i in range(100000) %}{% set x = ";
  for (const char* work : {"a < b", "a is lt(b)", "a is ge(b)", "[a, b] | max", "loop.changed(a if i % 2 else b)"})
    EXPECT_THAT(error_of_template(lists + rounds + work + " %}{% endfor %}"), HasSubstr("more than 30000000 steps"))
        << work;
  const std::string dicts = "{% set d = dict(range(100000) | batch(2)) %}{% set e = dict(range(100000) | batch(2)) %}";
  EXPECT_THAT(error_of_template(dicts + "{{ d == e }}"), ::testing::IsEmpty());
}

TEST(JinjaLimits, NumbersThatFitNowhereAreErrors) {
  EXPECT_THAT(error_of_template("{{ '12' | int(0, 1) }}"), HasSubstr("base 1 is neither 0 nor from 2 to 36"));
  EXPECT_THAT(error_of_template("{{ '12' | int(0, 4294967306) }}"), HasSubstr("is neither 0 nor from 2 to 36"));
  EXPECT_THAT(error_of_template("{{ '%d' % 1e300 }}"), HasSubstr("more than 64 bits"));
}

TEST(JinjaLimits, SyntaxDoesNotNestWithoutEnd) {
  const std::pair<const char*, const char*> around[] = {{"(", ")"},   {"[", "]"}, {"{1:", "}"},        {"f(", ")"},
                                                        {"not ", ""}, {"-", ""},  {"1 if 1 else ", ""}};
  for (const auto& [open, close] : around)
    EXPECT_THAT(error_of_template("{{ " + repeated(open, 100000) + "1" + repeated(close, 100000) + " }}"),
                HasSubstr("deeper than 150 levels"))
        << open;
  EXPECT_THAT(error_of_template(repeated("{% if 1 %}", 100000)), HasSubstr("deeper than 150 levels"));
  for (const char* part : {"+ 1 ", "| trim ", ".a", "[0]", "or 1 ", "()"})
    EXPECT_THAT(error_of_template("{{ 1 " + repeated(part, 100000) + "}}"),
                HasSubstr("more than 150 steps inside each other"))
        << part;
}

TEST(JinjaLimits, CirclesAreFreed) {  // the address sanitizer looks for what is not
  const nlohmann::ordered_json none = nlohmann::ordered_json::object();
  EXPECT_EQ(
      Template("{% set a = namespace() %}{% set a.a = a %}{% set a.b = [a] %}{{ a.a.b | length }}", "t").render(none),
      "1");
  EXPECT_EQ(Template("{% macro f() %}{% endmacro %}{% set ns = namespace(f=f) %}{% for i in [1] %}{% macro g() %}{{ i "
                     "}}{% endmacro %}"
                     "{% set ns.g = g %}{% endfor %}{{ ns.g() }}",
                     "t")
                .render(none),
            "1");
}

}  // namespace
}  // namespace crumb::jinja
