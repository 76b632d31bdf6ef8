// Malformed GGUF files: each is refused with an error that names the place, and none crashes or allocates what the file
// cannot hold.
#include <gmock/gmock.h>

#include <filesystem>

#include "core/formats/gguf.h"
#include "tests/formats/support.h"

namespace crumb::formats {
namespace {

std::string open_error(const std::string& text) {
  const TempDir dir;
  write_file(dir / "bad.gguf", text);
  const std::string error = error_of([&] { GgufReader reader(dir / "bad.gguf"); });
  if (!error.empty()) {
    EXPECT_THAT(error, HasSubstr("bad.gguf"));
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
  }
  return error;
}

// A file with a string, arrays and three tensors; the last one fills its padding.
RawGguf sound() {
  RawGguf raw;
  raw.raw_key("general.architecture", 8, RawGguf::str("llama"));
  raw.raw_key("list", 9,
              RawGguf::pod<uint32_t>(8) + RawGguf::pod<uint64_t>(2) + RawGguf::str("a") + RawGguf::str("bc"));
  raw.raw_key("numbers", 9, RawGguf::pod<uint32_t>(5) + RawGguf::pod<uint64_t>(3) + std::string(12, '\1'));
  raw.key<uint8_t>("flag", 7, 1);
  raw.tensor("norm", 0, {8}, 0).tensor("two", 40, {512, 2}, 32).tensor("q", 8, {32, 16}, 32 + 288);
  raw.data.assign(32 + 288 + 544, '\3');
  return raw;
}

TEST(DamagedGguf, TheSoundFileIsRead) { EXPECT_EQ(open_error(sound().text()), ""); }

TEST(DamagedGguf, TruncationAtEveryByteIsAnError) {
  const std::string text = sound().text();
  for (size_t length = 0; length < text.size(); ++length) ASSERT_NE(open_error(text.substr(0, length)), "") << length;
}

// Opens a file and, if that works, touches every tensor.
std::string use_error(const fs::path& path) {
  return error_of([&] {
    const GgufReader reader(path);
    for (const auto& [key, value] : reader.metadata()) value.text();
    for (const auto& t : reader.tensors()) {
      std::vector<float> row(static_cast<size_t>(t.cols()));
      if (t.readable && t.rows() > 0) reader.read_rows(t, t.rows() - 1, t.rows(), row.data());
    }
  });
}

TEST(DamagedGguf, AFlippedByteIsAnErrorOrAnotherSoundFile) {
  const RawGguf raw = sound();
  const std::string text = raw.text();
  const TempDir dir;
  int refused = 0;
  for (size_t at = 0; at < raw.header().size(); ++at) {
    for (const int flip : {0x01, 0x02, 0x10, 0x80, 0xff}) {
      std::string damaged = text;
      damaged[at] = static_cast<char>(damaged[at] ^ flip);
      write_file(dir / "a.gguf", damaged);
      refused += use_error(dir / "a.gguf").empty() ? 0 : 1;
    }
  }
  EXPECT_GT(refused, 1000);
}

TEST(DamagedGguf, TheFrameOfTheFile) {
  RawGguf raw = sound();
  raw.magic = "GGML";
  EXPECT_THAT(open_error(raw.text()), HasSubstr("not a GGUF file"));
  for (const auto& [version, word] :
       std::vector<std::pair<uint32_t, const char*>>{{1, "version 1"}, {4, "version 4"}, {0x03000000, "big-endian"}}) {
    raw = sound();
    raw.version = version;
    EXPECT_THAT(open_error(raw.text()), HasSubstr(word));
  }
  EXPECT_THAT(open_error(""), HasSubstr("not a GGUF file"));
  EXPECT_THAT(open_error("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
              HasSubstr("a Git LFS pointer"));
}

TEST(DamagedGguf, Metadata) {
  const auto error = [](const std::string& key, uint32_t type, const std::string& bytes) {
    return open_error(RawGguf().raw_key("first", 4, RawGguf::pod(1u)).raw_key(key, type, bytes).text());
  };
  EXPECT_THAT(error("first", 4, RawGguf::pod(1u)), HasSubstr("'first' is there twice"));
  EXPECT_THAT(error("", 4, RawGguf::pod(1u)), HasSubstr("empty"));
  EXPECT_THAT(error(std::string("a\0b", 3), 4, RawGguf::pod(1u)),
              HasSubstr("the name of metadata key 2 of 2 holds a control character"));
  EXPECT_THAT(error("k", 13, RawGguf::pod(1u)), HasSubstr("'k': unknown value type 13"));
  EXPECT_THAT(error("k", 7, "\2"), HasSubstr("must be 0 or 1"));
  EXPECT_THAT(error("k", 9, RawGguf::pod(9u) + RawGguf::pod<uint64_t>(1)), HasSubstr("arrays of arrays"));
  EXPECT_THAT(error("k", 9, RawGguf::pod(77u) + RawGguf::pod<uint64_t>(1)), HasSubstr("unknown type 77"));
  EXPECT_THAT(error("general.alignment", 4, RawGguf::pod(48u)), HasSubstr("power of two, got 48"));
  EXPECT_THAT(error("general.alignment", 4, RawGguf::pod(0u)), HasSubstr("power of two, got 0"));
  EXPECT_THAT(error("general.alignment", 10, RawGguf::pod<uint64_t>(32)), HasSubstr("u32"));
  EXPECT_THAT(error("split.count", 2, RawGguf::pod<uint16_t>(3)), HasSubstr("3 parts"));
}

TEST(DamagedGguf, AbsurdCountsAreRefusedWithoutAllocatingThem) {
  for (const uint64_t count :
       {uint64_t{1} << 40, uint64_t{1} << 61, uint64_t{1} << 63, ~uint64_t{0}, (uint64_t{1} << 62) + 1}) {
    const std::string n = RawGguf::pod(count);
    EXPECT_THAT(open_error(RawGguf().raw_key("k", 8, n + "abc").text()), HasSubstr("'k'"));
    for (const uint32_t type : {0u, 5u, 7u, 8u, 10u, 12u}) {
      EXPECT_THAT(open_error(RawGguf().raw_key("k", 9, RawGguf::pod(type) + n + "abc").text()), HasSubstr("'k'"));
    }
    RawGguf raw = sound();
    raw.tensor_count = count;
    EXPECT_NE(open_error(raw.text()), "");
    raw = sound();
    raw.key_count = count;
    EXPECT_NE(open_error(raw.text()), "");
    EXPECT_THAT(open_error(RawGguf().tensor("t", 0, {count, 1u << 31}, 0).text()), HasSubstr("'t'"));
    EXPECT_THAT(open_error(RawGguf().tensor("t", 28, {count}, 0).text()), HasSubstr("'t'"));
  }
}

TEST(DamagedGguf, TensorInfos) {
  const auto error = [](const std::string& name, uint32_t type, const std::vector<uint64_t>& dims, uint64_t offset) {
    RawGguf raw;
    raw.tensor("first", 0, {8}, 0).tensor(name, type, dims, offset);
    raw.data.resize(32 + 4096);
    return open_error(raw.text());
  };
  EXPECT_EQ(error(std::string(63, 'x'), 0, {8}, 32), "");
  EXPECT_THAT(error(std::string(64, 'x'), 0, {8}, 32), HasSubstr("64 bytes"));
  EXPECT_THAT(error("first", 0, {8}, 32), HasSubstr("'first' is there twice"));
  EXPECT_THAT(error("t", 0, {1, 1, 1, 1, 1}, 32), HasSubstr("5 dimensions"));
  EXPECT_THAT(error("t", 8, {40}, 32), HasSubstr("40 weights"));
  EXPECT_THAT(error("t", 36, {256}, 32), HasSubstr("unknown tensor type 36"));
  EXPECT_THAT(error("t", 0, {8}, 64), HasSubstr("'t' has offset 64, expected 32"));
  EXPECT_THAT(error("t", 0, {8}, 0), HasSubstr("'t' has offset 0, expected 32"));
  EXPECT_THAT(error("t", 0, {8}, ~uint64_t{0}), HasSubstr("offset"));
  EXPECT_THAT(error("t", 0, {0, uint64_t{1} << 40, uint64_t{1} << 40}, 32), HasSubstr("absurdly large"));
  EXPECT_THAT(error("t", 19, {uint64_t{1} << 61, 0}, 32), HasSubstr("absurdly large"));  // iq1_s: 50 bytes a block
  EXPECT_THAT(error("t", 0, {1025}, 32), HasSubstr("past the end"));
  EXPECT_EQ(error("scalar", 0, {}, 32), "");
}

TEST(DamagedGguf, MissingFilesAndFoldersAreNamed) {
  const TempDir dir;
  EXPECT_THAT(error_of([&] { GgufReader reader(dir / "absent.gguf"); }), HasSubstr("absent.gguf"));
  EXPECT_THAT(error_of([&] { GgufReader reader(dir.path()); }), HasSubstr(dir.path().string()));
}

}  // namespace
}  // namespace crumb::formats
