// Every verb that reads a model, on models that are broken in every way that happens: one clear line, exit code 2, and
// no file made or changed.
#include <gmock/gmock.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "tests/export/test_models.h"
#include "tests/testing/testing.h"

namespace crumb {
namespace {

namespace fs = std::filesystem;
using testing::CommandResult;
using ::testing::HasSubstr;
using testing::read_file;
using testing::run_crumb;
using testing::TempDir;
using testing::write_file;
using Json = nlohmann::ordered_json;

/// Path below `folder` -> content, for every file.
std::map<std::string, std::string> files_in(const fs::path& folder) {
  std::map<std::string, std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) out[fs::relative(entry.path(), folder).string()] = read_file(entry.path());
  }
  return out;
}

void change_json(const fs::path& file, const std::function<void(Json&)>& change) {
  Json json = Json::parse(read_file(file));
  change(json);
  write_file(file, json.dump());
}

/// Changes the JSON header of a safetensors file, whose length stands in its first 8 bytes.
void change_header(const fs::path& file, const std::function<void(Json&)>& change) {
  const std::string bytes = read_file(file);
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  const std::string data = bytes.substr(sizeof length + length);
  Json header = Json::parse(bytes.substr(sizeof length, length));
  change(header);
  const std::string text = header.dump();
  length = text.size();
  write_file(file, std::string(reinterpret_cast<const char*>(&length), sizeof length) + text + data);
}

void cut(const fs::path& file, uintmax_t bytes) { fs::resize_file(file, fs::file_size(file) - bytes); }

/// A model in one way of being broken.
struct Broken {
  const char* name;
  std::function<void(const fs::path& folder)> spoil;
  const char* message;
};

const char* const kMatrix = "model.layers.0.mlp.up_proj.weight";

const std::vector<Broken>& broken_folders() {
  static const std::vector<Broken> all = {
      {"truncated", [](const fs::path& f) { cut(f / "model.safetensors", 1000); }, "model.safetensors"},
      {"overlap",
       [](const fs::path& f) {
         change_header(f / "model.safetensors", [](Json& header) {
           auto& offsets = header[kMatrix]["data_offsets"];
           offsets[0] = offsets[0].get<int64_t>() - 64, offsets[1] = offsets[1].get<int64_t>() - 64;
         });
       },
       "model.safetensors"},
      {"absurd",
       [](const fs::path& f) {
         change_header(f / "model.safetensors", [](Json& header) {
           header[kMatrix]["shape"] = {int64_t{1} << 40, int64_t{1} << 40};
         });
       },
       "model.safetensors"},
      {"unknown architecture",
       [](const fs::path& f) {
         change_json(f / "config.json", [](Json& config) {
           config["model_type"] = "gpt_neox";
           config["architectures"] = {"GPTNeoXForCausalLM"};
         });
       },
       "gpt_neox"},
      {"missing tensor",
       [](const fs::path& f) {
         change_header(f / "model.safetensors", [](Json& header) {
           header["other"] = header[kMatrix];
           header.erase(kMatrix);
         });
       },
       kMatrix},
      {"no configuration", [](const fs::path& f) { fs::remove(f / "config.json"); }, "config.json"},
  };
  return all;
}

class BadInput : public ::testing::Test {
 protected:
  void SetUp() override {
    testing::write_model(dir_ / "model", testing::small_spec(arch::Architecture::llama, 64), formats::DType::f32);
    std::string text;
    for (int i = 0; i < 200; ++i) text += "the cat and the dog number " + std::to_string(i * 7919 % 1000) + "\n\n\n";
    write_file(dir_ / "text.txt", text);
    fs::create_directories(dir_ / "out");
  }
  std::string path(const std::string& name) const { return " '" + (dir_ / name).string() + "'"; }

  /// Commands that read the weights of a folder, by name.
  std::map<std::string, std::string> readers(const std::string& model) const {
    std::map<std::string, std::string> commands = {
        {"export gguf", "export" + path(model) + " --to gguf-q8_0 -o" + path("out/a.gguf")},
        {"export hf", "export" + path(model) + " --to hf-bf16 -o" + path("out/a")},
        {"eval", "eval" + path(model) + " --text" + path("text.txt") + " --context 32 --max-windows 2 --out" +
                     path("out/a.md")},
        {"eval --baseline", "eval" + path("model") + " --baseline" + path(model) + " --text" + path("text.txt") +
                                " --context 32 --max-windows 2"},
        {"generate", "generate" + path(model) + " --prompt the --max-tokens 2"},
        {"generate --corpus", "generate" + path(model) + " --corpus 64 --out" + path("out/a.jsonl")},
    };
#ifdef CRUMB_WITH_TORCH
    const std::string job = " '" + (testing::source_dir() / "configs/qat/seq_w2.yaml").string() +
                            "' data.train=" + (dir_ / "text.txt").string() +
                            " schedule.tokens=64 data.sequence_length=32 output=" + (dir_ / "out/run").string();
    commands["quantize"] = "quantize" + path(model) + " --method rtn -o" + path("out/a");
    commands["train"] = "train" + job + " model=" + (dir_ / model).string();
    commands["train teacher"] =
        "train" + job + " model=" + (dir_ / "model").string() + " teacher=" + (dir_ / model).string();
#endif
    return commands;
  }

  void expect_refused(const std::string& name, const std::string& command, const std::string& message) {
    const auto before = files_in(dir_.path());
    const auto result = run_crumb("-q " + command);
    EXPECT_EQ(result.exit_code, 2) << name << ": " << result.err;
    EXPECT_THAT(result.err, HasSubstr(message)) << name;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << name << ": " << result.err;
    EXPECT_TRUE(files_in(dir_.path()) == before) << name << " made or changed a file";
  }

  TempDir dir_;
};

TEST_F(BadInput, BrokenFoldersAreNamedByEveryVerb) {
  for (const Broken& broken : broken_folders()) {
    fs::remove_all(dir_ / "broken");
    fs::copy(dir_ / "model", dir_ / "broken", fs::copy_options::recursive);
    broken.spoil(dir_ / "broken");
    for (const auto& [name, command] : readers("broken"))
      expect_refused(std::string(broken.name) + ", " + name, command, broken.message);
    expect_refused(std::string(broken.name) + ", inspect", "inspect" + path("broken"), broken.message);
  }
}

TEST_F(BadInput, WeightsThatAreNotNumbersAreNamedByEveryVerb) {
  fs::copy(dir_ / "model", dir_ / "broken", fs::copy_options::recursive);
  const fs::path file = dir_ / "broken/model.safetensors";
  std::string bytes = read_file(file);
  bytes.replace(bytes.size() - 4, 4, std::string(4, '\xff'));
  write_file(file, bytes);
  for (const auto& [name, command] : readers("broken")) expect_refused(name, command, "NaN");
}

TEST_F(BadInput, AVocabularyLargerThanTheEmbeddingIsNamedByEveryVerb) {
  fs::copy(dir_ / "model", dir_ / "broken", fs::copy_options::recursive);
  change_json(dir_ / "broken/tokenizer.json", [](Json& tokenizer) {
    Json token = tokenizer["added_tokens"][0];
    token["id"] = 288, token["content"] = "<|one too many|>";
    tokenizer["added_tokens"].push_back(token);
  });
  for (const auto& [name, command] : readers("broken")) {
    const bool is_teacher = name == "train teacher" || name == "eval --baseline";
    expect_refused(name, command, is_teacher ? "" : "288 rows");
  }
}

TEST_F(BadInput, AbsentModelsAreNamedByEveryVerb) {
  for (const auto& [name, command] : readers("absent")) expect_refused(name, command, "absent");
  expect_refused("inspect", "inspect" + path("absent"), "absent");
  expect_refused("tokenize", "tokenize" + path("absent") + " the", "absent");
}

TEST_F(BadInput, BrokenGgufFilesAreNamedByEveryVerb) {
  ASSERT_EQ(run_crumb("-q export" + path("model") + " --to gguf-bf16 -o" + path("whole.gguf")).exit_code, 0);
  const std::string whole = read_file(dir_ / "whole.gguf");
  const std::map<std::string, std::string> broken = {
      {"truncated data", whole.substr(0, whole.size() - 1000)},
      {"truncated header", whole.substr(0, 300)},
      {"absurd count", whole.substr(0, 8) + std::string(8, '\x7f') + whole.substr(16)},
      {"another version", whole.substr(0, 4) + '\x09' + whole.substr(5)},
      {"no GGUF", "GGML" + whole.substr(4)},
  };
  for (const auto& [what, bytes] : broken) {
    write_file(dir_ / "broken.gguf", bytes);
    for (const auto& [name, command] : readers("broken.gguf"))
      expect_refused(what + ", " + name, command, "broken.gguf");
    expect_refused(what + ", inspect", "inspect" + path("broken.gguf"), "broken.gguf");
    if (what.find("data") == std::string::npos)
      expect_refused(what + ", tokenize", "tokenize" + path("broken.gguf") + " the", "broken.gguf");
  }
}

TEST_F(BadInput, TextsThatCannotBeUsedAreNamed) {
  write_file(dir_ / "empty.txt", "");
  write_file(dir_ / "short.txt", "the cat");
  const auto eval = [&](const std::string& text) {
    return "eval" + path("model") + " --context 32 --text" + path(text);
  };
  expect_refused("eval", eval("empty.txt"), "empty.txt");
  expect_refused("eval", eval("short.txt"), "short.txt: 6 tokens, shorter than one window");
  expect_refused("eval", eval("absent.txt"), "absent.txt");
  expect_refused("tokenize", "tokenize" + path("model") + " --file" + path("absent.txt"), "absent.txt");
}

TEST_F(BadInput, OutputsOfOthersAreLeftAloneEvenByForce) {
  fs::create_directories(dir_ / "photos");
  write_file(dir_ / "photos/beach.jpg", "beach");
  expect_refused("hf over a folder", "--force export" + path("model") + " --to hf-bf16 -o" + path("photos"),
                 "no model");
  expect_refused("gguf over a folder", "--force export" + path("model") + " --to gguf-bf16 -o" + path("photos"),
                 "folder");
  expect_refused("over the source", "--force export" + path("model") + " --to hf-bf16 -o" + path("model"), "is read");
  expect_refused("over its parent",
                 "--force export" + path("model") + " --to hf-bf16 -o '" + dir_.path().string() + "'", "is read");
  expect_refused("corpus over the model", "--force generate" + path("model") + " --corpus 64 --out" + path("model"),
                 "is read");
#ifdef CRUMB_WITH_TORCH
  for (const char* output : {"model", "photos"})
    expect_refused("quantize", "--force quantize" + path("model") + " --method rtn -o" + path(output), "model");
#endif
}

TEST_F(BadInput, OutputsThatCannotBeWrittenAreTold) {
  write_file(dir_ / "file", "");
  std::map<std::string, std::string> writers = {
      {"export", "export" + path("model") + " --to gguf-bf16 -o" + path("file/a.gguf")},
      {"eval", "eval" + path("model") + " --text" + path("text.txt") + " --context 32 --out" + path("file/a.md")},
      {"generate", "generate" + path("model") + " --corpus 64 --out" + path("file/a.jsonl")},
  };
#ifdef CRUMB_WITH_TORCH
  writers["quantize"] = "quantize" + path("model") + " --method rtn -o" + path("file/a");
#endif
  for (const auto& [name, command] : writers) expect_refused(name, command, "is not a folder");
}

TEST_F(BadInput, ADiskThatFillsUpLeavesNothingBehind) {
  // A file may not grow beyond 32 kB: as if the disk were full.
  std::map<std::string, std::string> writers = {
      {"export gguf", "export" + path("model") + " --to gguf-bf16 -o" + path("out/a.gguf")},
      {"export hf", "export" + path("model") + " --to hf-bf16 -o" + path("out/a")},
      {"generate", "generate" + path("model") + " --temperature 0.1 --corpus 40000 --out" + path("out/a.jsonl")},
  };
#ifdef CRUMB_WITH_TORCH
  writers["quantize"] = "quantize" + path("model") + " --method rtn -o" + path("out/a");
#endif
  for (const auto& [name, command] : writers) {
    const auto result =
        testing::run_command("trap '' XFSZ; ulimit -f 32; " + testing::program().string() + " -q " + command);
    EXPECT_EQ(result.exit_code, 1) << name << ": " << result.err;
    EXPECT_THAT(result.err, HasSubstr("cannot write")) << name;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << name << ": " << result.err;
    EXPECT_TRUE(fs::is_empty(dir_ / "out")) << name;
  }
}

}  // namespace
}  // namespace crumb
