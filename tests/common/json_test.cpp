#include "core/common/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "tests/testing/testing.h"

namespace crumb {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::EndsWith;
using testing::error_of;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using testing::TempDir;
using testing::write_file;

std::string parse_error(const std::string& text) {
  return error_of([&] { parse_json(text, "a.json"); });
}

std::string repeated(const std::string& part, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += part;
  return out;
}

TEST(Json, GivesTheSameTreeAsTheLibrary) {
  const std::string text =
      R"({"a": [1, -2, 3.5, 18446744073709551615, null, true, false, [], {}], "b": {"c": "ä\n\u20ac", "": {"d": []}},)"
      "\n\t\"e\": 1e300}";
  EXPECT_EQ(parse_json(text, "a"), json::parse(text));
  for (const char* scalar : {"1", "\"x\"", "null", "[]", " {} ", "\xEF\xBB\xBF[1]"})
    EXPECT_EQ(parse_json(scalar, "a"), json::parse(scalar)) << scalar;
}

TEST(Json, ErrorsNameFileLineColumnAndReason) {
  EXPECT_THAT(parse_error("{\"a\": 1,\n \"b\": nul}"), AllOf(StartsWith("a.json:2:10: not valid JSON: "),
                                                             EndsWith("invalid literal; last read: '\"b\": nul}'")));
  EXPECT_THAT(parse_error("{\"ä\": NaN}"),
              AllOf(StartsWith("a.json:1:7: not valid JSON: "), EndsWith("invalid literal; last read: '\"ä\": N'")));
  EXPECT_THAT(parse_error(R"({"a": "\ud800"})"), AllOf(StartsWith("a.json:1:14: not valid JSON: "),
                                                       HasSubstr("surrogate U+D800..U+DBFF must be followed")));
  EXPECT_THAT(parse_error("[1, 2"), AllOf(StartsWith("a.json:1:6: "), HasSubstr("unexpected end of input")));
  EXPECT_THAT(parse_error(""), AllOf(StartsWith("a.json:1:1: "), HasSubstr("unexpected end of input")));
  EXPECT_THAT(parse_error("[1] 2"), StartsWith("a.json:1:5: not valid JSON: "));
  EXPECT_THAT(parse_error("[1e999]"), AllOf(StartsWith("a.json:1:"), EndsWith("number overflow parsing '1e999'")));
  EXPECT_THAT(parse_error("[\"\xE4\"]"), HasSubstr("ill-formed UTF-8 byte"));
  EXPECT_THAT(error_of([] { parse_json("{\n?", "b.jsonl", {.first_line = 41}); }), StartsWith("b.jsonl:42:1: "));
}

TEST(Json, ErrorsAreOneLineOfBoundedLength) {
  const std::string message = parse_error("[\"" + std::string(1 << 20, 'x') + "\n\"]");
  EXPECT_LT(message.size(), 400U);
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

TEST(Json, NestingHasALimit) {
  const auto nested = [](int levels) { return repeated("[", levels) + repeated("]", levels); };
  EXPECT_EQ(parse_json(nested(kMostJsonLevels), "a"), json::parse(nested(kMostJsonLevels)));
  EXPECT_EQ(parse_error(nested(kMostJsonLevels + 1)), "a.json:1:129: nested deeper than 128 levels");
  EXPECT_EQ(parse_error("{\"any\":\n" + repeated("[", 100'000)), "a.json:2:128: nested deeper than 128 levels");
  EXPECT_EQ(parse_error(repeated("{\"a\":", 100'000)), "a.json:1:641: nested deeper than 128 levels");
  EXPECT_EQ(error_of([] { parse_json("[[[1]]]", "a", {.most_levels = 2}); }), "a:1:3: nested deeper than 2 levels");
}

TEST(Json, AKeyGivenTwiceIsRefusedWhereTheValuesDiffer) {
  EXPECT_EQ(parse_error("{\"a\": 1,\n\"b\": {\"bits\": 2, \"bits\": 4}}"),
            "a.json:2:23: \"bits\" is given twice, as 2 and as 4");
  EXPECT_THAT(parse_error(R"({"a": [1], "b": 0, "a": [2]})"),
              HasSubstr("\"a\" is given twice, as a list and as a list"));
  EXPECT_THAT(parse_error(R"({"a": {"x": 1}, "a": {}})"), HasSubstr("\"a\" is given twice, as an object and as {}"));
  EXPECT_EQ(parse_json(R"({"a": {"x": [1]}, "a": {"x": [1]}})", "a"), json::parse(R"({"a": {"x": [1]}})"));
  EXPECT_EQ(parse_json(R"([{"a": 1}, {"a": 2}])", "a")[1]["a"], 2);
  EXPECT_EQ(error_of([] { parse_json(R"({"a": 1, "a": 1})", "a", {.unique_keys = true}); }),
            "a:1:12: \"a\" is given twice");
}

TEST(Json, LargeObjectsTakeLinearTime) {
  const auto seconds = [](int entries) {
    std::string text = "{";
    for (int i = 0; i < entries; ++i) text += "\"name " + std::to_string(i) + "\": {\"offsets\": [1, 2]},\n";
    text += "\"end\": 0}";
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(parse_json(text, "a").size(), static_cast<size_t>(entries) + 1);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  seconds(1000);
  EXPECT_LT(seconds(80'000), 40 * seconds(8'000));  // 10 times, were it not for noise; 100 times if quadratic
}

TEST(Json, FilesAreReadAndNamed) {
  const TempDir dir;
  write_file(dir / "a.json", "{\"a\": 1}");
  EXPECT_EQ(read_json(dir / "a.json"), json({{"a", 1}}));
  write_file(dir / "a.json", "{\"a\": 1");
  EXPECT_THAT(error_of([&] { read_json(dir / "a.json"); }),
              StartsWith((dir / "a.json").string() + ":1:8: not valid JSON: "));
}

TEST(Json, WritesBytesThatAreNoUtf8AsReplacementCharacters) {
  EXPECT_EQ(dump_json(json{{"path", "a\xFF/b"}}), "{\"path\":\"a\xEF\xBF\xBD/b\"}");
  EXPECT_EQ(dump_json(nlohmann::ordered_json{{"b", 1}, {"a", 2}}), R"({"b":1,"a":2})");
  EXPECT_EQ(dump_json(json{{"a", 1}}, 2), "{\n  \"a\": 1\n}");
}

TEST(JsonObject, TakesNumbersOnlyAsWhatTheyAre) {
  const json object = parse_json(
      R"({"whole": 3, "part": 2.7, "round": 2.0, "huge": 1e308, "wide": 3000000000, "vast": 18446744073709551615,
          "below": -1, "yes": true, "text": "4", "list": [1]})",
      "a");
  const JsonObject a(object, "a.json");
  EXPECT_EQ(a.get<int>("whole"), 3);
  EXPECT_EQ(a.get<double>("whole"), 3.0);
  EXPECT_EQ(a.get<int64_t>("wide"), 3'000'000'000);
  EXPECT_EQ(a.get<uint64_t>("vast"), UINT64_MAX);
  const auto integer = [&](const char* key) { return error_of([&] { a.get<int>(key); }); };
  EXPECT_EQ(integer("part"), "a.json: part must be an integer, not 2.7");
  EXPECT_EQ(integer("round"), "a.json: round must be an integer, not 2.0");
  EXPECT_EQ(integer("huge"), "a.json: huge must be an integer, not 1e+308");
  EXPECT_EQ(integer("wide"), "a.json: wide is 3000000000, which is out of range");
  EXPECT_EQ(error_of([&] { a.get<int64_t>("vast"); }), "a.json: vast is 18446744073709551615, which is out of range");
  EXPECT_EQ(error_of([&] { a.get<uint64_t>("below"); }), "a.json: below is -1, which is out of range");
  EXPECT_EQ(integer("yes"), "a.json: yes must be an integer, not true");
  EXPECT_EQ(integer("text"), "a.json: text must be an integer, not \"4\"");
  EXPECT_EQ(integer("list"), "a.json: list must be an integer, not a list");
  EXPECT_EQ(error_of([&] { a.get<double>("yes"); }), "a.json: yes must be a number, not true");
  EXPECT_EQ(error_of([&] { a.get<float>("huge"); }), "a.json: huge is 1e+308, which is out of range");
  EXPECT_EQ(error_of([&] { a.flag("whole", false); }), "a.json: whole must be true or false, not 3");
  EXPECT_EQ(error_of([&] { a.text("whole", ""); }), "a.json: whole must be a string, not 3");
}

TEST(JsonObject, NullIsAnAbsentKey) {
  const json object = {{"null", nullptr}, {"one", 1}};
  const JsonObject a(object, "a.json");
  EXPECT_FALSE(a.has("null"));
  EXPECT_TRUE(a.names("null"));
  EXPECT_FALSE(a.names("absent"));
  EXPECT_EQ(a.get<int>("null", 7), 7);
  EXPECT_EQ(a.get<int>("absent", 7), 7);
  EXPECT_EQ(a.get<int>("one", 7), 1);
  EXPECT_EQ(error_of([&] { a.get<int>("null"); }), "a.json: null is missing");
  EXPECT_EQ(error_of([] { JsonObject(json::array(), "a.json"); }), "a.json: not a JSON object");
}

}  // namespace
}  // namespace crumb
