// Split GGUF files: NAME-00001-of-0000N.gguf and its other parts are one model.
#include <gmock/gmock.h>

#include <filesystem>

#include "core/formats/gguf.h"
#include "tests/formats/support.h"

namespace crumb::formats {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;

// A part with one tensor of four floats, all `number` + 1.
RawGguf part(uint16_t number, uint16_t count, const std::string& tensor) {
  RawGguf raw;
  if (number == 0) raw.key<uint32_t>("answer", 4, 42).key<int32_t>("split.tensors.count", 5, count);
  raw.key<uint16_t>("split.no", 2, number).key<uint16_t>("split.count", 2, count);
  if (tensor.empty()) return raw;
  raw.tensor(tensor, 0, {4}, 0);
  for (int i = 0; i < 4; ++i) raw.data += RawGguf::pod(static_cast<float>(number + 1));
  raw.data.resize(32);
  return raw;
}

class SplitGguf : public ::testing::Test {
 protected:
  SplitGguf() {
    write("m-00001-of-00003.gguf", part(0, 3, "a"));
    write("m-00002-of-00003.gguf", part(1, 3, "b"));
    write("m-00003-of-00003.gguf", part(2, 3, "c"));
  }
  void write(const std::string& name, const RawGguf& raw) { write_file(dir_ / name, raw.text()); }
  std::string error(const std::string& name = "m-00001-of-00003.gguf") {
    return error_of([&] { GgufReader reader(dir_ / name); });
  }
  std::string at(const std::string& name) { return (dir_ / name).string(); }

  TempDir dir_;
};

TEST_F(SplitGguf, OpensAsOneFromItsFirstPart) {
  const GgufReader reader(dir_ / "m-00001-of-00003.gguf");
  EXPECT_EQ(reader.num_parts(), 3u);
  EXPECT_EQ(reader.get_int("answer"), 42);
  EXPECT_EQ(reader.file_bytes(), static_cast<int64_t>(fs::file_size(dir_ / "m-00001-of-00003.gguf") +
                                                      fs::file_size(dir_ / "m-00002-of-00003.gguf") +
                                                      fs::file_size(dir_ / "m-00003-of-00003.gguf")));
  std::vector<std::string> names;
  std::vector<float> values;
  for (const auto& t : reader.tensors()) {
    names.push_back(t.name);
    float row[4];
    reader.read_rows(reader.tensor(t.name), 0, 1, row);
    values.push_back(row[3]);
    reader.release_rows(t, 0, 1);
  }
  EXPECT_THAT(names, ElementsAre("a", "b", "c"));
  EXPECT_THAT(values, ElementsAre(1.0f, 2.0f, 3.0f));
}

TEST_F(SplitGguf, AnotherPartSendsToTheFirst) {
  EXPECT_EQ(error("m-00003-of-00003.gguf"), at("m-00003-of-00003.gguf") +
                                                ": one of 3 parts of a split GGUF, number 3; give the first, " +
                                                at("m-00001-of-00003.gguf"));
  fs::rename(dir_ / "m-00002-of-00003.gguf", dir_ / "b.gguf");
  EXPECT_THAT(error("b.gguf"), HasSubstr("number 2; give the first, " + at("NAME-00001-of-00003.gguf")));
}

TEST_F(SplitGguf, AMissingPartIsNamed) {
  fs::remove(dir_ / "m-00002-of-00003.gguf");
  EXPECT_EQ(error(), at("m-00001-of-00003.gguf") + ": part 2 of 3 is missing: " + at("m-00002-of-00003.gguf"));
}

TEST_F(SplitGguf, ARenamedFirstPartIsToldItsName) {
  fs::rename(dir_ / "m-00001-of-00003.gguf", dir_ / "model.gguf");
  EXPECT_THAT(error("model.gguf"), HasSubstr("one of 3 parts of a split GGUF, the first; it must be called "
                                             "NAME-00001-of-00003.gguf"));
}

TEST_F(SplitGguf, PartsOfAnotherSplitAreRefused) {
  write("m-00002-of-00003.gguf", part(2, 3, "b"));
  EXPECT_EQ(error(), at("m-00002-of-00003.gguf") +
                         ": its split.no is 2, that of part 3, but its name is that of part 2 of " +
                         at("m-00001-of-00003.gguf"));
  write("m-00002-of-00003.gguf", part(1, 4, "b"));
  EXPECT_THAT(error(), HasSubstr("m-00002-of-00003.gguf: split.count is 4, expected 3"));
  write("m-00002-of-00003.gguf", RawGguf());
  EXPECT_THAT(error(), HasSubstr("m-00002-of-00003.gguf: split.no is missing"));
}

TEST_F(SplitGguf, ACopyOfAnotherPartIsToldByItsNumberAndNotByItsTensors) {
  write("m-00003-of-00003.gguf", part(1, 3, "b"));
  EXPECT_EQ(error(), at("m-00003-of-00003.gguf") +
                         ": its split.no is 1, that of part 2, but its name is that of part 3 of " +
                         at("m-00001-of-00003.gguf"));
}

TEST_F(SplitGguf, APartThatIsALinkToItselfIsAMistakeOfTheUser) {
  const std::string name = "m-00002-of-00003.gguf";
  fs::remove(dir_ / name);
  fs::create_symlink(name, dir_ / name);
  EXPECT_THROW(GgufReader(dir_ / "m-00001-of-00003.gguf"), UserError);
  EXPECT_EQ(error(), "cannot read " + at(name) + ": Too many levels of symbolic links");
}

TEST_F(SplitGguf, BytesBehindTheLastTensorOfAPartAreTold) {
  RawGguf longer = part(1, 3, "b");
  longer.data += std::string(100, '\0');
  write("m-00002-of-00003.gguf", longer);
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(error(), "");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(),
            "warning: " + at("m-00002-of-00003.gguf") +
                ": 100 bytes after the last tensor belong to no tensor, and are ignored\n");
}

TEST_F(SplitGguf, TheFirstPartMustSayWhichItIs) {
  write("m-00001-of-00003.gguf", RawGguf().key<uint16_t>("split.count", 2, 3));
  EXPECT_THAT(error(), HasSubstr("one of 3 parts of a split GGUF, but split.no is missing"));
  write("m-00001-of-00003.gguf", part(3, 3, "a"));
  EXPECT_THAT(error(), HasSubstr("but split.no is 3"));
  write("m-00001-of-00003.gguf", RawGguf().key<int32_t>("split.count", 5, -3));
  EXPECT_THAT(error(), HasSubstr("one of -3 parts"));
  write("m-00001-of-00003.gguf", RawGguf().key<uint32_t>("split.count", 4, 100000));
  EXPECT_THAT(error(), HasSubstr("1 to 65535 can be read"));
}

TEST_F(SplitGguf, TheNumberOfTensorsIsChecked) {
  write("m-00003-of-00003.gguf", part(2, 3, ""));
  EXPECT_THAT(error(), HasSubstr("m-00001-of-00003.gguf: split.tensors.count is 3, but 2 tensors are there"));
}

TEST_F(SplitGguf, ATensorInTwoPartsIsRefused) {
  write("m-00003-of-00003.gguf", part(2, 3, "a"));
  EXPECT_EQ(error(), at("m-00003-of-00003.gguf") + ": tensor 'a' is also in " + at("m-00001-of-00003.gguf"));
}

TEST_F(SplitGguf, ATruncatedPartIsNamed) {
  fs::resize_file(dir_ / "m-00002-of-00003.gguf", fs::file_size(dir_ / "m-00002-of-00003.gguf") - 20);
  EXPECT_THAT(error(), AllOf(HasSubstr("m-00002-of-00003.gguf: tensor 'b'"), HasSubstr("truncated")));
}

TEST_F(SplitGguf, KeysOfLaterPartsAreNotIgnoredSilently) {
  write("m-00002-of-00003.gguf", part(1, 3, "b").key<uint32_t>("answer", 4, 42));  // as the first part: nothing lost
  write("m-00003-of-00003.gguf", part(2, 3, "c").key<uint32_t>("answer", 4, 43).key<uint32_t>("other", 4, 1));
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(error(), "");
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(log, "warning: " + at("m-00003-of-00003.gguf") + ": metadata that " + at("m-00001-of-00003.gguf") +
                     " does not have, or has otherwise, are ignored: answer, other\n");
}

TEST_F(SplitGguf, PartsHaveAlignmentsOfTheirOwn) {
  RawGguf first = part(0, 3, "a");
  first.alignment = 64;
  first.key<uint32_t>("general.alignment", 4, 64).data.resize(64);
  write("m-00001-of-00003.gguf", first);
  EXPECT_THAT(error(), HasSubstr("m-00002-of-00003.gguf: general.alignment is missing, which is 64 in"));
  for (const uint16_t number : {1, 2}) {
    write("m-0000" + std::to_string(number + 1) + "-of-00003.gguf",
          part(number, 3, number == 1 ? "b" : "c").key<uint32_t>("general.alignment", 4, 32));
  }
  const GgufReader reader(dir_ / "m-00001-of-00003.gguf");
  for (const auto& t : reader.tensors()) {
    float row[4];
    reader.read_rows(t, 0, 1, row);
    EXPECT_EQ(row[0], static_cast<float>(t.part + 1));
  }
}

TEST_F(SplitGguf, ASplitOfOnePartMayHaveAnyName) {
  write("whole.gguf", part(0, 1, "a"));
  EXPECT_EQ(error("whole.gguf"), "");
}

// Type 41 alone at the end of part 2 may be Q1_0 or Q2_0C with padding; part 3 tells.
TEST_F(SplitGguf, AmbiguousTypesMeanTheSameInAllParts) {
  const auto with_type_41 = [](uint16_t number, size_t rows, size_t bytes) {
    RawGguf raw;
    raw.key<uint16_t>("split.no", 2, number).key<uint16_t>("split.count", 2, 3);
    raw.tensor("t" + std::to_string(number), 41, {512, rows}, 0);
    raw.data.resize(bytes, '\x55');
    return raw;
  };
  write("m-00002-of-00003.gguf", with_type_41(1, 1, 160));  // 72 or 130 bytes, and what is left over
  write("m-00003-of-00003.gguf", with_type_41(2, 3, 3 * 130));
  const GgufReader reader(dir_ / "m-00001-of-00003.gguf");
  EXPECT_EQ(reader.tensor("t1").type_name, "q2_0c");
  EXPECT_EQ(reader.tensor("t2").type_name, "q2_0c");
}

TEST(SplitGgufOfThePackage, HoldsWhatTheWholeFileHolds) {
  CRUMB_NEED_PEERS(python);
  const TempDir dir;
  call_peer(python, "gguf-split " + dir.path().string());
  const GgufReader whole(dir / "whole.gguf"), split(dir / "split-00001-of-00003.gguf");
  EXPECT_EQ(split.num_parts(), 3u);
  ASSERT_EQ(split.tensors().size(), whole.tensors().size());
  for (const auto& t : whole.tensors()) {
    const auto expected = whole.bytes(t), got = split.bytes(split.tensor(t.name));
    EXPECT_EQ(hex(got.data(), got.size()), hex(expected.data(), expected.size())) << t.name;
    EXPECT_EQ(split.tensor(t.name).type, t.type);
    EXPECT_EQ(split.tensor(t.name).shape, t.shape);
  }
  for (const auto& [key, value] : whole.metadata()) {
    ASSERT_NE(split.find(key), nullptr) << key;
    EXPECT_TRUE(*split.find(key) == value) << key;
  }
}

}  // namespace
}  // namespace crumb::formats
