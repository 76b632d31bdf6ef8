#include "quant/codes_folder.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "tests/quant/codes_model.h"
#include "tests/testing/in_child.h"
#include "tests/testing/testing.h"

namespace crumb::quant {
namespace {

using testing::error_of;
using ::testing::HasSubstr;
using testing::names_in;
using testing::read_file;
using testing::TempDir;

/// Rows [begin, end) of a tensor, from the model.
void put_rows(CodesFolder& folder, const CodesModel& model, const arch::TensorDesc& desc, int64_t begin, int64_t end) {
  if (folder.format_of(desc) != nullptr) {
    folder.put(desc, begin, model.block(desc.hf_name, begin, end));
    return;
  }
  std::vector<float> values(static_cast<size_t>((end - begin) * desc.cols()));
  model.base->read_rows(model.base->tensor(desc.hf_name), begin, end, values.data());
  folder.put(desc, begin, end, values.data());
}

void put_tensor(CodesFolder& folder, const CodesModel& model, const arch::TensorDesc& desc) {
  put_rows(folder, model, desc, 0, desc.rows());
  folder.finish(desc, {{"name", desc.hf_name}});
}

CodesFolder folder_of(const CodesModel& model, const Path& path, const std::string& job) {
  std::filesystem::create_directories(path);
  return {path, *model.base, model.source().formats, {"lm_head"}, job};
}

TEST(CodesFolder, IsTheSameInWhateverOrderTensorsAndRowsCome) {
  const TempDir dir;
  const CodesModel model;
  std::filesystem::create_directories(dir / "in_order");
  write_codes_folder(dir / "in_order", *model.base, model.source(), {"lm_head"});

  CodesFolder folder = folder_of(model, dir / "mixed", "");
  auto tensors = model.base->tensors();
  std::ranges::reverse(tensors);
  for (const auto& tensor : tensors) {  // the later half of each first
    const int64_t middle = tensor.desc.rows() / 2;
    if (middle > 0) put_rows(folder, model, tensor.desc, middle, tensor.desc.rows());
    if (middle > 0) put_rows(folder, model, tensor.desc, 0, middle);
    if (middle == 0) put_rows(folder, model, tensor.desc, 0, tensor.desc.rows());
  }
  for (const auto& tensor : model.base->tensors()) folder.finish(tensor.desc);
  folder.complete();
  ASSERT_EQ(names_in(dir / "mixed"), names_in(dir / "in_order"));
  for (const auto& name : names_in(dir / "mixed"))
    EXPECT_TRUE(read_file(dir / "mixed" / name) == read_file(dir / "in_order" / name)) << name;
}

TEST(CodesFolder, GoesOnFromWhatAnotherProcessFinished) {
  const TempDir dir;
  const CodesModel model;
  {
    CodesFolder whole = folder_of(model, dir / "whole", "a job");
    for (const auto& tensor : model.base->tensors()) put_tensor(whole, model, tensor.desc);
    whole.complete();
  }
  const auto& tensors = model.base->tensors();
  {
    CodesFolder first = folder_of(model, dir / "resumed", "a job");
    for (size_t i = 0; i < tensors.size(); i += 2) put_tensor(first, model, tensors[i].desc);
    put_rows(first, model, tensors[1].desc, 0, 1);  // not finished
  }
  EXPECT_TRUE(CodesFolder::holds(dir / "resumed", "a job"));
  EXPECT_FALSE(CodesFolder::holds(dir / "resumed", "another job"));
  {
    CodesFolder second = folder_of(model, dir / "resumed", "a job");
    for (size_t i = 0; i < tensors.size(); ++i) {
      const auto& desc = tensors[i].desc;
      ASSERT_EQ(second.is_finished(desc), i % 2 == 0);
      if (second.is_finished(desc))
        EXPECT_EQ(second.note(desc).at("name"), desc.hf_name);
      else
        put_tensor(second, model, desc);
    }
    second.complete();
  }
  ASSERT_EQ(names_in(dir / "resumed"), names_in(dir / "whole")) << "the record is gone";
  for (const auto& name : names_in(dir / "whole"))
    EXPECT_TRUE(read_file(dir / "resumed" / name) == read_file(dir / "whole" / name)) << name;
}

TEST(CodesFolder, DamagedTensorsAndHalfALineOfTheRecordAreNotFinished) {
  const TempDir dir;
  const CodesModel model;
  const auto& tensors = model.base->tensors();
  {
    CodesFolder first = folder_of(model, dir / "out", "a job");
    for (size_t i = 0; i < 5; ++i) put_tensor(first, model, tensors[i].desc);
  }
  std::string record = read_file(dir / "out/progress.jsonl");
  record.pop_back();  // the end of the last line
  const size_t of_second = record.find("\"name\"", record.find('\n', record.find('\n') + 1));
  record.replace(of_second, 6, "\"nome\"");  // a note that nobody wrote
  testing::write_file(dir / "out/progress.jsonl", record);
  std::string bytes = read_file(dir / "out/model.safetensors");
  const formats::SafetensorsReader reader(dir / "out");
  const auto& damaged = reader.at(tensors[0].desc.hf_name);
  uint64_t head = 0;
  std::memcpy(&head, bytes.data(), sizeof head);
  bytes[8 + head + static_cast<size_t>(damaged.offset)] ^= 1;
  testing::write_file(dir / "out/model.safetensors", bytes);

  CodesFolder second = folder_of(model, dir / "out", "a job");
  for (size_t i = 0; i < tensors.size(); ++i)
    EXPECT_EQ(second.is_finished(tensors[i].desc), 2 <= i && i <= 3) << tensors[i].desc.hf_name;
  for (const auto& tensor : tensors) {
    if (!second.is_finished(tensor.desc)) put_tensor(second, model, tensor.desc);
  }
  second.complete();
  EXPECT_NO_THROW(open_checkpoint(dir / "out"));
}

TEST(CodesFolder, AnotherJobsWorkIsNotTouched) {
  const TempDir dir;
  const CodesModel model;
  { CodesFolder first = folder_of(model, dir / "out", "a job"); }
  const std::string before = read_file(dir / "out/progress.jsonl");
  EXPECT_THAT(error_of([&] { folder_of(model, dir / "out", "another job"); }),
              HasSubstr("holds unfinished work of another job, or of this one with other settings or another model"));
  EXPECT_EQ(read_file(dir / "out/progress.jsonl"), before);
  std::filesystem::create_directories(dir / "strange");
  testing::write_file(dir / "strange/x", "mine");
  EXPECT_THAT(error_of([&] { folder_of(model, dir / "strange", "a job"); }),
              HasSubstr("holds no unfinished work of this program"));
  EXPECT_EQ(names_in(dir / "strange"), std::vector<std::string>{"x"});
}

TEST(CodesFolder, KeepsMasks) {
  const TempDir dir;
  CodesModel model;
  model.prune();
  {  // two processes, and rows in pieces
    CodesFolder first = folder_of(model, dir / "out", "a job");
    const auto& tensors = model.base->tensors();
    for (size_t i = 0; i < tensors.size(); i += 2) put_tensor(first, model, tensors[i].desc);
  }
  CodesFolder second = folder_of(model, dir / "out", "a job");
  for (const auto& tensor : model.base->tensors()) {
    if (second.is_finished(tensor.desc)) continue;
    put_rows(second, model, tensor.desc, 0, 1);
    if (tensor.desc.rows() > 1) put_rows(second, model, tensor.desc, 1, tensor.desc.rows());
    second.finish(tensor.desc);
  }
  second.complete();
  const auto saved = open_checkpoint(dir / "out");
  int masked = 0;
  for (const auto& [name, expected] : model.tensors) {
    const auto& stored = saved->tensor(name);
    ASSERT_EQ(stored.format, expected.format) << name;
    const auto codes = saved->read_codes(stored, 0, expected.rows), part = saved->read_codes(stored, 3, 5);
    EXPECT_EQ(codes.mask, expected.mask) << name;
    EXPECT_EQ(part.mask, model.block(name, 3, 5).mask) << name;
    EXPECT_EQ(codes.codes, expected.codes) << name;
    masked += expected.mask.empty() ? 0 : 1;
  }
  EXPECT_EQ(masked, 5) << "q and k of two layers, v of the first";
  EXPECT_EQ(saved->hf_config().at("quantization_config").contains("mask"), false) << "most are SEQ";
}

TEST(CodesFolder, AMaskThatTheCodesContradictIsRefused) {
  const TempDir dir;
  CodesModel model;
  model.prune();
  std::filesystem::create_directories(dir / "out");
  write_codes_folder(dir / "out", *model.base, model.source(), {"lm_head"});
  const std::string name = "model.layers.1.self_attn.k_proj.weight";
  std::string bytes = read_file(dir / "out/model.safetensors");
  const formats::SafetensorsReader reader(dir / "out");
  uint64_t head = 0;
  std::memcpy(&head, bytes.data(), sizeof head);
  const auto& tensor = model.tensors.at(name);
  const size_t kept = static_cast<size_t>(std::ranges::find(tensor.mask, 1) - tensor.mask.begin());
  ASSERT_LT(kept, 8u);
  ASSERT_NE(tensor.codes[kept], 128);
  bytes[8 + head + static_cast<size_t>(reader.at(name + "_mask").offset)] &= static_cast<char>(~(1 << kept));
  testing::write_file(dir / "out/model.safetensors", bytes);
  const auto saved = open_checkpoint(dir / "out");
  EXPECT_THAT(error_of([&] { saved->read_codes(saved->tensor(name), 0, 4); }),
              ::testing::EndsWith(fmt::format(
                  "tensor {}_mask says that row 0, column {} is pruned, but its value is not 0", name, kept)));
  // and one that config.json does not know of, or that is missing
  std::string config = read_file(dir / "out/config.json");
  const std::string word = "\"mask\": true";
  ASSERT_NE(config.find(word), std::string::npos);
  testing::write_file(dir / "out/config.json", config.replace(config.find(word), word.size(), "\"mask\": false"));
  EXPECT_THAT(error_of([&] { open_checkpoint(dir / "out"); }), HasSubstr("_mask is not part of a llama model"));
}

TEST(CodesFolder, RefusesValuesThatAreNotFinite) {
  const TempDir dir;
  const CodesModel model;
  CodesFolder folder = folder_of(model, dir / "out", "");
  const auto& norm = model.base->tensor("model.norm.weight").desc;
  const std::vector<float> values(static_cast<size_t>(norm.elements()), std::numeric_limits<float>::infinity());
  EXPECT_THAT(error_of([&] { folder.put(norm, 0, 1, values.data()); }), HasSubstr("model.norm.weight"));
  const auto& linear = model.base->tensor("model.layers.1.mlp.up_proj.weight").desc;
  auto rows = model.block(linear.hf_name, 0, 2);
  rows.scales[1] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(error_of([&] { folder.put(linear, 0, rows); }), HasSubstr(linear.hf_name + "_scale"));
}

}  // namespace
}  // namespace crumb::quant
