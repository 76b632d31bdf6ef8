// Each part of the language, against Python's jinja2.
#include <gmock/gmock.h>

#include "tests/jinja/peer.h"

namespace crumb::jinja {
namespace {

using testing::TemplateCase;

const nlohmann::ordered_json kVariables = {
    {"n", 3},
    {"x", 2.5},
    {"s", "Hello, W\u00f6rld \u4f60\u597d"},
    {"empty", ""},
    {"words", "  one two\tthree\n four  "},
    {"nothing", nullptr},
    {"yes", true},
    {"list", {3, 1, 2}},
    {"names", {"b", "A", "c", "a"}},
    {"dict", {{"zeta", 1}, {"alpha", {{"inner", "v"}}}, {"items", "an item"}}},
    {"messages",
     {{{"role", "user"}, {"content", "Hi"}}, {{"role", "assistant"}, {"content", "Hello!"}, {"tool_calls", nullptr}}}},
};

void expect_all(const std::vector<std::string>& sources) {
  CRUMB_NEED_PEERS(python);
  std::vector<TemplateCase> cases;
  for (const auto& source : sources) cases.push_back({source, kVariables});
  testing::expect_as_jinja(python, cases);
}

TEST(JinjaLanguage, WhiteSpaceAroundTags) {
  expect_all({"a\n{% if yes %}\nb\n{% endif %}\nc\n",
              "a\n  {% if yes %}  \n  b  \n  {% endif %}  \nc\n\n",
              "a \n {%- if yes -%} \n b \n {%- endif -%} \n c",
              "a \n {%+ if yes +%} \n b {%+ endif %}\nc",
              "  {{ n }}  \n  {{- n -}}  \n  {{ n }}\n",
              "{# c #}\na{#- c -#} b {# c #}\n\nd",
              "a {#+ c +#}\nb",
              "a\r\nb\r{% if yes %}\r\nc{% endif %}\r\n",
              "\n\n{{ n }}\n\n",
              "\u00a0{%- if yes %}\u3000x{% endif %}",
              "{% raw %}{{ n }} {% if %}{% endraw %}",
              "a\n  {% raw %}\n x {{ y }} \n  {% endraw %}\nb",
              "a {%- raw -%}  x  {%- endraw -%} b",
              "{",
              "a { b } {c",
              "{{ '}}' }}{{ \"%}\" }}",
              "{{ {'a': {'b': 1}} }}",
              "  {% set a = 1 %}{% set b = 2 %}  \n {% set c = 3 %}x",
              "{%- set a = 1 %}\n\n{{ a }}",
              "a\n\n",
              "a\n"});
}

TEST(JinjaLanguage, Literals) {
  expect_all(
      {"{{ 1 }} {{ 1_000 }} {{ 0x1F }} {{ 0b11 }} {{ 0o17 }} {{ 1.5 }} {{ 1e3 }} {{ 1_0.5e-1 }}", "{{ 'a' \"b\" }}",
       R"({{ 'a\n\t\\\'\"\x41\u00e9\U0001f600\101\q' }})", "{{ true }} {{ True }} {{ none }}",
       "{{ [1, 'a', 2.0, none, true] }} {{ (1,) }} {{ () }} {{ (1, 2) }} {{ {} }}",
       "{{ {'a': 1, 'b': [1, {'c': none}], 2: 3} }}", "{{ {'a': 1, 'a': 2} }}", "{{ 1, 2 }}", "{{ [1, 2, ] }}",
       R"({{ ["it's", 'say "x"', 'both \' "', '\n\x07\u200b\u00e9'] }})",
       "{{ 1e16 }} {{ 1e15 }} {{ 1e-5 }} {{ 0.0001 }} {{ 1e100 }} {{ 123456789.125 }} {{ 0.1 + 0.2 }} {{ -0.0 }}"});
}

TEST(JinjaLanguage, Operators) {
  expect_all({"{{ 1 + 2 * 3 - 4 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 2 ** -1 }}",
              "{{ 4503599627370497.0 // 1.0 }} {{ -4503599627370497.0 // 1.0 }} {{ 0.9 // 0.1 }} {{ 1.0 // 0.1 }}",
              "{{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 1 / 3 }} {{ true + 1 }} {{ 2 ** 0.5 }}",
              "{{ 'a' + 'b' * 3 ~ 1 ~ none }}",
              "{{ [1] + [2] }} {{ [0] * 3 }} {{ (1,) + (2,) }} {{ 3 * 'ab' }}",
              "{{ 1 + 'a' }}",
              "{{ 1 / 0 }}",
              "{{ 1 % 0 }}",
              "{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 1 == '1' }}",
              "{{ true == 1 }} {{ none == none }} {{ [1] == [1] }} {{ (1,) == [1] }} {{ {'a': 1} == {'a': 1.0} }}",
              "{{ 1 < 'a' }}",
              "{{ none < 1 }}",
              "{{ 'a' in 'abc' }} {{ 1 in [1, 2] }} {{ 'zeta' in dict }} {{ 3 not in list }}",
              "{{ 1 in 'abc' }}",
              "{{ 1 in 5 }}",
              "{{ not 1 in list }} {{ not yes and no }}",
              "{{ 0 or 'x' }} {{ '' and 1 }} {{ 1 and 2 or 3 }}",
              "{{ 'a' if yes else 'b' }} {{ 'a' if not yes }} {{ 1 if 0 else 2 if 0 else 3 }}",
              "{{ -n }} {{ +x }} {{ - 2 ** 2 }} {{ -'a' }}",
              "{{ -n }} {{ +x }} {{ -2 ** 2 }}",
              "{{ 1 ~ 2.0 ~ true ~ [1] ~ missing }}",
              "{{ 1 + 2 ~ 3 + 4 }}",
              "{{ '%s is %d, %r, %5.1f|%-4s|%04d%%' % ('a', 3, 'b', 2.25, 'c', 7) }}",
              "{{ '%s' % n }}",
              "{{ '%s %s' % 'a' }}",
              "{{ '%d' % 'a' }}",
              "{{ 'x' % 1 }}",
              "{{ 9223372036854775807 }}"});
}

TEST(JinjaLanguage, AttributesItemsAndSlices) {
  expect_all(
      {"{{ dict.zeta }} {{ dict['zeta'] }} {{ dict.alpha.inner }} {{ dict['alpha']['inner'] }} {{ dict['items'] }}",
       "{{ dict.items() | list }}",
       "{{ dict.missing }}|{{ dict['missing'] }}",
       "{{ dict.missing.more }}",
       "{{ missing.more }}",
       "{{ missing['more'] }}",
       "{{ nothing.x }}|{{ nothing['x'] }}",
       "{{ n.x }}",
       "{{ list.0 }} {{ list[-1] }} {{ list[7] }}|",
       "{{ s[0] }} {{ s[-1] }} {{ s[8] }} {{ s[99] }}|",
       "{{ list[1:] }} {{ list[:-1] }} {{ list[::-1] }} {{ list[::2] }} {{ list[5:] }}",
       "{{ s[7:12] }} {{ s[::-1] }} {{ s[-2:] }} {{ s[:-100] }} {{ s[100::-3] }} {{ s[2:2] }}",
       "{{ (1, 2, 3)[1:] }} {{ list[::0] }}",
       "{{ list['a'] }}|{{ list[1.5] }}|",
       "{{ n[0] }}|",
       "{{ messages[0].role }} {{ messages[-1]['content'] }} {{ messages[1:][0].role }}",
       "{{ dict.get('zeta') }} {{ dict.get('q') }} {{ dict.get('q', 5) }} {{ dict.keys() | list }} {{ dict.values() | "
       "list }}",
       "{{ dict.keys() }} {{ dict.items() }}",
       "{{ dict.pop('zeta') }}",
       "{{ list.append(1) }}",
       "{{ dict.__class__ }}",
       "{{ ''.__class__.x }}",
       "{{ {1: 'a', 'b': 2}[1] }}",
       "{{ list.index(2) }} {{ list.count(1) }} {{ (1, 1).count(1) }}",
       "{{ list.index(9) }}",
       "{{ dict[[1]] }}"});
}

TEST(JinjaLanguage, StatementsAndScopes) {
  expect_all({"{% if n == 1 %}a{% elif n == 3 %}b{% else %}c{% endif %}",
              "{% if missing %}a{% else %}b{% endif %}",
              "{% if n: %}a{% endif %}",
              "{% set a = 1 %}{% if yes %}{% set a = 2 %}{% endif %}{{ a }}",
              "{% set a = 1 %}{% for i in list %}{% set a = a + i %}{{ a }} {% endfor %}{{ a }}",
              "{% set ns = namespace(a=1, b='x') %}{% for i in list %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a "
              "}}{{ ns.b }}{{ ns.c }}",
              "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a + ns['b'] }}",
              "{% set list.x = 1 %}",
              "{% set ns.x = 1 %}",
              "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
              "{% set a, b = [1] %}",
              "{% set (a, b) = (1, 2) %}{{ a + b }}",
              "{% set a %}x {{ n }}{% endset %}{{ a }}",
              "{% set a | upper | trim %} x {{ s }} {% endset %}[{{ a }}]",
              "{% with a = 1, b = n %}{{ a + b }}{% endwith %}{{ a }}",
              "{% set a = 5 %}{% with a = 1, b = a %}{{ b }}{% endwith %}",
              "{% filter upper %}a{{ s }}{% set q = 1 %}{% endfilter %}{{ q }}",
              "{% print n, 'a' %}",
              "{% generation %}a{% set q = 1 %}{{ n }}{% endgeneration %}{{ q }}",
              "{% set messages = messages[1:] %}{{ messages | length }}",
              "{% unknown %}",
              "{% if %}{% endif %}",
              "{% if yes %}",
              "{% endif %}",
              "{% set true = 1 %}",
              "{{ }}",
              "{{ 1 +",
              "{% for %}",
              "{% include 'a' %}",
              "{# open",
              "{{ 'open }}",
              "{{ (1] }}",
              "{{ a b }}",
              "{{ ? }}",
              "{% raw %}x"});
}

TEST(JinjaLanguage, Loops) {
  expect_all(
      {"{% for i in list %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ "
       "loop.last }}{{ loop.length }};{% endfor %}",
       "{% for i in list %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }};{% else %}none{% endfor %}",
       "{% for i in [] %}a{% else %}none{% endfor %}",
       "{% for i in missing %}a{% else %}none{% endfor %}",
       "{% for i in nothing %}a{% endfor %}",
       "{% for i in n %}{% endfor %}",
       "{% for k, v in dict.items() %}{{ k }}={{ v }};{% endfor %}",
       "{% for k in dict %}{{ k }};{% endfor %}",
       "{% for c in s %}{{ c }}.{% endfor %}",
       "{% for i in list if i > 1 %}{{ i }}{{ loop.index }}{{ loop.last }};{% else %}none{% endfor %}",
       "{% for i in list if i > 9 %}{{ i }}{% else %}none{% endfor %}",
       "{% for k, v in dict.items() if k != 'items' %}{{ k }}{% if not loop.last %}, {% endif %}{% endfor %}",
       "{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% "
       "endfor %}",
       "{% for i in list %}{% for j in list %}{{ loop.index }}{{ i }}{{ j }} {% endfor %}{{ loop.index }}{% endfor %}",
       "{% for i in list %}{{ loop.cycle('a', 'b') }}{{ loop.changed(i > 1) }}{% endfor %}",
       "{% for a, b in [(1, 2), (3, 4)] %}{{ a + b }};{% endfor %}",
       "{% for a, b in [1] %}{% endfor %}",
       "{% for i in (1, 2), 3 %}{{ i }};{% endfor %}",
       "{% for i in range(2, 8, 3) %}{{ i }};{% endfor %}{{ range(3) | list }}",
       "{% for i in range(3, 0, -1) %}{{ i }}{% endfor %}",
       "{% for i in range(100001) %}{% endfor %}",
       "{% for m in messages[::-1] %}{% set index = (messages|length - 1) - loop.index0 %}{{ index }}{{ m.role }}{% "
       "endfor %}",
       "{% for t in [[1, [2, [3]]], [4]] recursive %}{{ t if t is number else '(' ~ loop(t) ~ ')' }}{{ loop.depth }}{% "
       "endfor %}",
       "{% for i in list %}{{ loop(i) }}{% endfor %}",
       "{% for i in list %}{% else %}{{ loop }}{% endfor %}",
       "{{ loop }}|{{ loop.index }}",
       "{% break %}"});
}

TEST(JinjaLanguage, MacrosAndCalls) {
  expect_all(
      {"{% macro f(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }};{% endmacro %}{{ f(1) }}{{ f(1, 3) }}{{ f(b=5, a=4) }}{{ f() "
       "}}",
       "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}",
       "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(q=2) }}",
       "{% macro f(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, q=3) }}",
       "{% macro f(a) %}<{{ caller(a) }}>{% endmacro %}{% call(x) f(3) %}x={{ x }}{% endcall %}",
       "{% macro f() %}{{ caller() }}{% endmacro %}{{ f() }}",
       "{% macro f() %}a{% endmacro %}{% call f() %}b{% endcall %}",
       "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}",
       "{% macro f() %}{{ n }}{{ late }}{% endmacro %}{% set late = 'L' %}{{ f() }}",
       "{% macro f() %}{{ i }}{% endmacro %}{% for i in list %}{{ f() }}{% endfor %}",
       "{% macro f() %}{% set n = 9 %}{{ n }}{% endmacro %}{{ f() }}{{ n }}",
       "{% macro f(a, b=1, c) %}{% endmacro %}",
       "{% macro f(x) %} {{ x }} {% endmacro %}[{{ f(1) | trim }}]{{ f(2) ~ 'a' }}",
       "{{ missing() }}",
       "{{ n() }}",
       "{{ s.nothing() }}",
       "{% set args = [1, 2] %}{% macro f(a, b, c=0) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(*args, **{'c': 3}) }}",
       "{{ dict(a=1, b=2) }}{{ dict({'c': 3}, d=4) }}",
       "{{ namespace(_a=1).q }}",
       "{{ raise_exception('no') }}",
       "{% if no %}{{ raise_exception('no') }}{% endif %}ok",
       "{{ strftime_now('%d %b %Y %H:%M %%') }}",
       "{% set j = joiner(', ') %}{% for i in list %}{{ j() }}{{ i }}{% endfor %}"});
}

TEST(JinjaLanguage, FiltersOfTexts) {
  expect_all(
      {"{{ s | upper }} {{ s | lower }} {{ 'hELLO wORLD-x y(z' | title }} {{ 'hELLO w' | capitalize }} {{ '' | "
       "capitalize }}",
       "{{ none | upper }} {{ 12 | lower }}",
       "[{{ words | trim }}] [{{ 'xxaxx' | trim('x') }}] [{{ 5 | trim }}]",
       "{{ 'aaa' | replace('a', 'b') }} {{ 'aaa' | replace('a', 'b', 2) }} {{ 121 | replace(1, 3) }}",
       "{{ 'abc' | replace('', '-') }} {{ 'abc' | replace('', '-', 2) }}",
       "{{ s | length }} {{ list | length }} {{ dict | count }} {{ missing | length }}",
       "{{ n | length }}",
       "{{ none | length }}",
       "{{ 'a\nb\n\nc' | indent }}|{{ 'a\nb\n\nc' | indent(2, true) }}|{{ 'a\n\nb' | indent('> ', blank=true) }}|{{ '' "
       "| indent }}",
       "{{ 5 | indent }}",
       "{{ 'a b c' | wordcount }}",
       "{{ 'foo bar baz qux' | truncate(9) }}|{{ 'foo bar baz qux' | truncate(9, true) }}|{{ 'foo bar baz qux' | "
       "truncate(11) }}|{{ 'foo bar baz' | truncate(9, false, '', 0) }}",
       "{{ 'a' | center(6) }}|{{ 'ab' | center(5) }}|",
       "{{ '%s-%s' | format('a', 1) }}",
       "{{ 1.0 | string }}{{ none | string }}{{ [1, 'a'] | string }}",
       "{{ s | first }}{{ s | last }}{{ s | reverse }}",
       "{{ s | list }}",
       "{{ 'stra\u00dfe \u01c6' | upper }} {{ '\u03a3\u0391\u03a3 \u0130' | lower }}",
       "{{ missing | upper }}|{{ missing | trim }}|",
       "{{ s | nothing }}",
       "{{ s | upper(1) }}",
       "{{ s | replace('a') }}"});
}

TEST(JinjaLanguage, FiltersOfNumbersAndJson) {
  expect_all({"{{ -3 | abs }} {{ (-3) | abs }} {{ (-2.5) | abs }}",
              "{{ '42' | int }} {{ '42.9' | int }} {{ 'x' | int }} {{ 'x' | int(7) }} {{ 3.9 | int }} {{ none | int }} "
              "{{ ' 12 ' | int }} {{ '0x1f' | int(0, 16) }}",
              "{{ '1.5' | float }} {{ 'x' | float }} {{ 2 | float }} {{ 'x' | float(1.5) }} {{ '1e3' | float }}",
              "{{ 2.5 | round }} {{ 3.5 | round }} {{ 2.567 | round(2) }} {{ 2.1 | round(0, 'ceil') }} {{ 2.19 | "
              "round(1, 'floor') }} {{ 7 | round }}",
              "{{ dict | tojson }}", "{{ dict | tojson(indent=2) }}",
              "{{ [] | tojson(indent=2) }}{{ {} | tojson(indent=4) }}{{ [1, [2]] | tojson(indent=1) }}",
              "{{ s | tojson }} {{ s | tojson(ensure_ascii=true) }} {{ '\U0001f600' | tojson(true) }}",
              R"({{ "<a href='x'>&\"\\/\n\t\x01\x7f\u2028" | tojson }})",
              "{{ [1, 1.0, 1e20, true, none, (1, 2)] | tojson }}",
              "{{ {'b': 1, 'a': {'d': 1, 'c': 2}} | tojson(sort_keys=true) }}",
              "{{ {'a': [1, 2]} | tojson(separators=(',', ':')) }} {{ {'a': 1} | tojson(indent='--') }}",
              "{{ {1: 2, none: 3, true: 4, 1.5: 6} | tojson }}", "{{ missing | tojson }}",
              "{{ dict.items() | tojson }}", "{{ 'a' | tojson + 'b' }}"});
}

TEST(JinjaLanguage, FiltersOfLists) {
  expect_all(
      {"{{ list | first }} {{ list | last }} {{ [] | first }}| {{ [] | last }}| {{ dict | first }} {{ missing | first "
       "}}|",
       "{{ list | join }} {{ list | join(', ') }} {{ messages | join('; ', attribute='role') }} {{ missing | join }}|",
       "{{ list | sort }} {{ names | sort }} {{ names | sort(case_sensitive=true) }} {{ list | sort(reverse=true) }} "
       "{{ messages | sort(attribute='role') | map(attribute='role') | list }}",
       "{{ [1, 'a'] | sort }}",
       "{{ list | reverse | list }} {{ list | unique | list }} {{ ['a', 'A', 'b'] | unique | list }}",
       "{{ list | min }} {{ list | max }} {{ names | max }} {{ [] | min }}|",
       "{{ list | sum }} {{ messages | map(attribute='content') | map('length') | sum }}",
       "{{ dict | items | list }} {{ dict | dictsort }} {{ missing | items | list }}",
       "{{ list | items | list }}",
       "{{ messages | map(attribute='role') | list }} {{ names | map('upper') | join(',') }} {{ messages | "
       "map(attribute='q', default='d') | list }}",
       "{{ list | select('odd') | list }} {{ list | reject('odd') | list }} {{ [0, 1, ''] | select | list }} {{ list | "
       "select('>', 1) | list }}",
       "{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | rejectattr('role', "
       "'equalto', 'user') | map(attribute='role') | first }}",
       "{{ messages | selectattr('tool_calls') | list }} {{ messages | selectattr('tool_calls', 'defined') | list | "
       "length }} {{ messages | selectattr('role', 'in', ['user']) | list | length }}",
       "{{ list | select('nothing') | list }}",
       "{{ list | map('nothing') | list }}",
       "{{ list | map('upper', 1) | list }}",
       "{{ list | batch(2) | list }} {{ list | batch(2, 'x') | list }}",
       "{{ (list | select('odd')) | length }}",
       "{% set g = list | select('odd') %}{{ g | list }}{{ g | list }}{{ g | first }}|",
       "{{ missing | default('d') }} {{ '' | default('d') }} {{ '' | default('d', true) }} {{ none | default('d') }} "
       "{{ missing | d }}|",
       "{{ messages | map(attribute='content.0') | list }}",
       "{{ dict | attr('zeta') }}|{{ s | attr('upper') is callable }}",
       "{{ list | list }} {{ 'ab' | list }} {{ dict | list }}",
       "{{ 5 | list }}",
       "{{ none | first }}",
       "{{ [3, 1] | sort | first }}{{ [[2, 1], [1, 2]] | sort }}"});
}

TEST(JinjaLanguage, Tests) {
  std::vector<std::string> sources;
  for (const char* value : {"n", "x", "s", "empty", "nothing", "yes", "list", "dict", "missing", "(1,)", "'AB'", "'ab'",
                            "dict.items()", "namespace()"})
    for (const char* test : {"defined", "undefined", "none", "boolean", "true", "false", "integer", "float", "number",
                             "string", "mapping", "sequence", "iterable", "callable", "lower", "upper"})
      if (!(std::string(value) == "namespace()" && (std::string(test) == "lower" || std::string(test) == "upper")))
        sources.push_back("{{ " + std::string(value) + " is " + test + " }}");
  for (const char* source :
       {"{{ 3 is odd }}{{ 3 is even }}{{ 9 is divisibleby 3 }}{{ 9 is divisibleby(2) }}",
        "{{ n is not defined }} {{ not n is none }}", "{{ n is eq 3 }} {{ n is == 3 }}",
        "{{ n is eq(3) and n is gt 2 and n is lessthan 4 }}", "{{ n is in list }} {{ 9 is not in list }}",
        "{{ yes is sameas true }} {{ nothing is sameas none }} {{ 1 is sameas true }}",
        "{{ 'upper' is filter }} {{ 'qqq' is filter }} {{ 'odd' is test }}",
        "{{ range(2) is sequence }}{{ range(2) is iterable }}{{ (list | select) is sequence }}{{ (list | select) is "
        "iterable }}",
        "{{ n is nothing }}", "{{ 'a' is odd }}", "{{ n is eq }}",
        "{{ n is string or yes }} {{ n is number if yes else 3 }}",
        "{{ messages[1].tool_calls is defined and messages[1].tool_calls is not none }}",
        "{{ messages[0].tool_calls is defined }}", "{{ n is number is number }}"})
    sources.push_back(source);
  expect_all(sources);
}

TEST(JinjaLanguage, MethodsOfTexts) {
  expect_all(
      {"{{ words.split() }} {{ 'a,b,,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }} {{ words.split(none, 1) }} {{ 'a "
       "b'.split(' ') }} {{ ''.split() }} {{ ''.split(',') }}",
       "{{ 'aaa'.rsplit('aa') }} {{ 'aaaa'.rsplit('aa', 1) }} {{ 'a--b-c'.rsplit('--') }} {{ 'ab'.rfind('') }}",
       "{{ 'a'.split('') }}",
       "{{ 'a,b,c'.rsplit(',', 1) }} {{ 'a,b'.split(sep=',', maxsplit=0) }}",
       "[{{ words.strip() }}] [{{ words.lstrip() }}] [{{ words.rstrip() }}] [{{ '\nab\n'.strip('\n') }}] [{{ "
       "'xyax'.lstrip('yx') }}] [{{ '\u4f60a\u4f60'.strip('\u4f60') }}]",
       "{{ s.startswith('He') }} {{ s.endswith('\u597d') }} {{ s.startswith(('a', 'H')) }} {{ s.startswith('') }}",
       "{{ s.startswith(1) }}",
       "{{ s.upper() }} {{ s.lower() }} {{ 'hi there'.capitalize() }}",
       "{{ s.replace('l', 'L') }} {{ s.replace('l', 'L', 1) }} {{ 'ab'.replace('', '.') }}",
       "{{ s.replace(1, 2) }}",
       "{{ s.find('W') }} {{ s.find('\u597d') }} {{ s.find('q') }} {{ 'aba'.rfind('a') }} {{ 'aaa'.count('a') }} {{ "
       "'aaa'.count('') }} {{ 'aaaa'.count('aa') }}",
       "{{ ', '.join(names) }} {{ '-'.join('abc') }}",
       "{{ ','.join(list) }}",
       "{{ 'a=b=c'.partition('=') }} {{ 'a=b=c'.rpartition('=') }} {{ 'abc'.partition('=') }} {{ 'abc'.rpartition('=') "
       "}}",
       "{{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.py'.removesuffix('.py') }}",
       "{{ 'a\nb\r\nc\u2028d'.splitlines() }} {{ 'a\nb\n'.splitlines(true) }} {{ ''.splitlines() }}",
       "{{ '12'.isdigit() }} {{ 'a1'.isalnum() }} {{ 'ab'.isalpha() }} {{ ' \t'.isspace() }} {{ 'aB'.islower() }} {{ "
       "'AB1'.isupper() }} {{ ''.isdigit() }} {{ 'a'.isascii() }}",
       "{{ 'a'.ljust(3) }}|{{ 'a'.rjust(3, '*') }}|{{ 'a'.center(4) }}|{{ 'ab'.center(5, '.') }}|{{ '-5'.zfill(4) }}",
       "{{ '{} {1} {x}'.format('a', 'b', x=1) }}",
       "{{ '{} and {} {{}} {x}'.format('a', 2, x=none) }}",
       "{{ '{}'.format() }}",
       "{{ s.nothing }}|",
       "{{ s.nothing() }}",
       "{{ s.upper(1) }}",
       "{{ s['upper']() }}",
       "{{ '</think>a'.split('</think>')[-1].lstrip('\n') }}",
       "{{ 'a<think>\nb\n</think>\n\nc'.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') }}"});
}

std::string error_of_template(const std::string& source, const nlohmann::ordered_json& variables = kVariables) {
  return testing::error_of([&] { Template(source, "chat.jinja").render(variables); });
}

TEST(JinjaLanguage, ErrorsAreOneLineWithTheTemplateTheLineAndTheCause) {
  EXPECT_EQ(error_of_template("a\n\n{{ missing.x }}"), "chat.jinja:3: 'missing' is undefined");
  EXPECT_EQ(error_of_template("{{ dict.q.x }}"), "chat.jinja:1: 'dict object' has no attribute 'q'");
  EXPECT_EQ(error_of_template("\n{{ s | escape }}"), "chat.jinja:2: the filter \"escape\" is unknown or not supported");
  EXPECT_EQ(error_of_template("{{ s is shiny }}"), "chat.jinja:1: the test \"shiny\" is unknown or not supported");
  EXPECT_EQ(error_of_template("{{ s.swapcase() }}"), "chat.jinja:1: the method swapcase of a str is not supported");
  EXPECT_EQ(error_of_template("{{ list.append(1) }}"),
            "chat.jinja:1: access to attribute 'append' of 'list' object is unsafe.");
  EXPECT_EQ(error_of_template("x\n{% include 'y' %}"), "chat.jinja:2: the tag \"include\" is unknown or not supported");
  EXPECT_EQ(error_of_template("x\n{% if yes %}\n"), "chat.jinja:2: the template ends where \"endif\" should follow");
  EXPECT_EQ(error_of_template("{{ 99999999999999999999 }}"),
            "chat.jinja:1: \"99999999999999999999\" is not a whole number of 64 bits");
  EXPECT_EQ(error_of_template("{{ 9223372036854775807 + 1 }}"), "chat.jinja:1: a whole number of more than 64 bits");
}

TEST(JinjaLanguage, ARefusalCarriesTheTextOfTheTemplate) {
  try {
    Template("\n{{ raise_exception('Roles must ' ~ 'alternate') }}", "chat.jinja").render(kVariables);
    FAIL();
  } catch (const Refusal& refusal) {
    EXPECT_STREQ(refusal.what(), "chat.jinja:2: the template refuses: Roles must alternate");
    EXPECT_EQ(refusal.exit_code(), kExitUser);
  }
}

// As jinja2's StrictUndefined, with the texts of ours.
TEST(JinjaLanguage, MissingNamesAreErrorsWhereAsked) {
  const auto strict = [](const std::string& source) {
    return crumb::testing::error_of([&] {
      Template(source, "t", MissingNames::are_errors).render({{"a", {{"b", 1}}}});
    });
  };
  EXPECT_EQ(strict("{{ a.b }}{{ x is defined }}{{ x | default(3) }}{{ a.c if a.c is defined else 1 }}"), "");
  EXPECT_EQ(strict("{{ x }}"), "t:1: 'x' is undefined");
  EXPECT_EQ(strict("\n{{ a.c }}"), "t:2: 'dict object' has no attribute 'c'");
  EXPECT_EQ(strict("{{ x | list }}"), "t:1: 'x' is undefined");
  for (const char* source :
       {"{% for y in x %}{% endfor %}", "{{ 'a' ~ x }}", "{{ x == 1 }}", "{{ 1 != x }}", "{{ x in [1] }}",
        "{% if x %}{% endif %}", "{{ 1 if x else 2 }}", "{{ not x }}", "{{ x or 1 }}", "{{ x and 1 }}"}) {
    EXPECT_EQ(strict(source), "t:1: 'x' is undefined") << source;
  }
  EXPECT_EQ(Template("{{ x }}", "t").render({{"a", 1}}), "");
}

// Results of Python's re.sub.
TEST(JinjaLanguage, RegexReplace) {
  const auto replaced = [](const std::string& text, const std::string& pattern, const std::string& by) {
    return Template("{{ text | regex_replace(pattern, by) }}", "t")
        .render({{"text", text}, {"pattern", pattern}, {"by", by}});
  };
  EXPECT_EQ(replaced("a [b [c] d] e []f", R"(\[.*?\])", ""), "a  d] e f");
  EXPECT_EQ(replaced("abc", "x*", "-"), "-a-b-c-");
  EXPECT_EQ(replaced("1\xC2\xB0 22", "[0-9]+", "n"), "n\xC2\xB0 n");
  EXPECT_THAT(crumb::testing::error_of([&] { replaced("a", "(a)", R"(\1)"); }),
              ::testing::HasSubstr("groups in the replacement"));
}

}  // namespace
}  // namespace crumb::jinja
