// Headers with 100,000 entries: reading one must not look through all the others.
#include <gmock/gmock.h>

#include "core/formats/gguf.h"
#include "core/formats/safetensors.h"
#include "tests/formats/support.h"

namespace crumb::formats {
namespace {

constexpr int kMany = 100'000;

std::string name_of(int i) { return "model.layers." + std::to_string(i) + ".weight"; }

TEST(ManyTensors, AreOpenedFromGguf) {
  RawGguf raw;
  for (int i = 0; i < kMany; ++i) {
    raw.key<int32_t>("key." + std::to_string(i), 5, i);
    const uint64_t pair = static_cast<uint64_t>(i / 2) * (32 + 160);  // a norm and a matrix of an ambiguous type
    if (i % 2 == 0)
      raw.tensor(name_of(i), 0, {8}, pair);
    else
      raw.tensor(name_of(i), 40, {512}, pair + 32);
  }
  raw.raw_key("list", 9, RawGguf::pod(7u) + RawGguf::pod<uint64_t>(kMany) + std::string(kMany, '\1'));
  raw.data.resize(static_cast<size_t>(kMany / 2) * (32 + 160));
  const TempDir dir;
  write_file(dir / "many.gguf", raw.text());
  const GgufReader reader(dir / "many.gguf");
  for (int i = 0; i < kMany; ++i) {
    ASSERT_EQ(reader.get_int("key." + std::to_string(i)), i);
    ASSERT_EQ(reader.tensor(name_of(i)).type_name, i % 2 == 0 ? "f32" : "q2_0c");
  }
}

TEST(ManyTensors, AreOpenedFromSafetensors) {
  SafetensorsWriter writer;
  for (int i = 0; i < kMany; ++i) writer.declare(name_of(i), DType::u8, {1});
  const TempDir dir;
  writer.begin_file(dir / "model.safetensors");
  const std::string bytes(kMany, '\7');
  writer.write(bytes.data(), kMany);
  writer.finish();
  const SafetensorsReader reader(dir / "model.safetensors");
  ASSERT_EQ(reader.tensors().size(), size_t{kMany});
  for (int i = 0; i < kMany; ++i) ASSERT_EQ(reader.at(name_of(i)).offset, i);
}

TEST(ManyTensors, AreOpenedThroughAnIndex) {
  SafetensorsWriter writer;
  for (int i = 0; i < kMany; ++i) writer.declare(name_of(i), DType::u8, {1});
  const TempDir dir;
  writer.begin_folder(dir.path(), kMany / 4);
  const std::string bytes(kMany, '\7');
  writer.write(bytes.data(), kMany);
  writer.finish();
  const SafetensorsReader reader(dir.path());
  EXPECT_EQ(reader.files().size(), 4u);
  for (int i = 0; i < kMany; ++i) ASSERT_EQ(reader.at(name_of(i)).offset, i % (kMany / 4));
}

}  // namespace
}  // namespace crumb::formats
