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
    std::error_code none;  // of a link to itself
    if (entry.is_regular_file(none)) out[fs::relative(entry.path(), folder).string()] = read_file(entry.path());
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

/// A safetensors file of a header alone.
void frame(const fs::path& file, const std::string& header) {
  const uint64_t length = header.size();
  write_file(file, std::string(reinterpret_cast<const char*>(&length), sizeof length) + header);
}

const std::string kLfsPointer =
    "version https://git-lfs.github.com/spec/v1\noid sha256:" + std::string(64, 'a') + "\nsize 123456789\n";

void link_to_itself(const fs::path& file) {
  fs::remove(file);
  fs::create_symlink(file.filename(), file);
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
      {"deep configuration",
       [](const fs::path& f) { write_file(f / "config.json", "{\"any\": " + std::string(100'000, '[')); },
       "config.json:1:136: nested deeper than 128 levels"},
      {"deep header",
       [](const fs::path& f) { frame(f / "model.safetensors", "{\"any\": " + std::string(100'000, '[')); },
       "model.safetensors: header:1:11: nested deeper than 3 levels"},
      {"cut configuration", [](const fs::path& f) { write_file(f / "config.json", "{\n\"model_type\": "); },
       "config.json:2:15: not valid JSON: "},
      {"two sizes",
       [](const fs::path& f) {
         const std::string text = read_file(f / "config.json");
         write_file(f / "config.json", "{\"hidden_size\": 32," + text.substr(text.find('{') + 1));
       },
       "\"hidden_size\" is given twice, as 32 and as 64"},
      {"layers that are no number",
       [](const fs::path& f) {
         change_json(f / "config.json", [](Json& config) { config["num_hidden_layers"] = 2.7; });
       },
       "config.json: num_hidden_layers must be an integer, not 2.7"},
      {"a size beyond all integers",
       [](const fs::path& f) { change_json(f / "config.json", [](Json& config) { config["hidden_size"] = 1e308; }); },
       "config.json: hidden_size must be an integer, not 1e+308"},
      {"weights left on the server", [](const fs::path& f) { write_file(f / "model.safetensors", kLfsPointer); },
       "model.safetensors: a Git LFS pointer, not the file itself"},
      {"configuration left on the server", [](const fs::path& f) { write_file(f / "config.json", kLfsPointer); },
       "config.json: a Git LFS pointer, not the file itself"},
      {"configuration that is a link to itself", [](const fs::path& f) { link_to_itself(f / "config.json"); },
       "config.json: Too many levels of symbolic links"},
      {"weights that are a link to themselves", [](const fs::path& f) { link_to_itself(f / "model.safetensors"); },
       "model.safetensors: Too many levels of symbolic links"},
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
    for (int id = 259; id <= 288; ++id) {
      token["id"] = id, token["content"] = "<|" + std::to_string(id) + "|>";
      tokenizer["added_tokens"].push_back(token);
    }
  });
  for (const auto& [name, command] : readers("broken")) {
    const bool is_teacher = name == "train teacher" || name == "eval --baseline";
    expect_refused(name, command, is_teacher ? "" : "288 rows");
  }
}

TEST_F(BadInput, TokenizersThatCannotBeParsedAreNamedByEveryVerb) {
  const std::map<std::string, std::pair<std::string, std::string>> broken = {
      {"deep", {"{\"any\": " + std::string(100'000, '['), "tokenizer.json:1:136: nested deeper than 128 levels"}},
      {"cut", {"{\n\"model\": ", "tokenizer.json:2:10: not valid JSON: "}},
      {"pointer", {kLfsPointer, "tokenizer.json: a Git LFS pointer, not the file itself"}},
  };
  fs::copy(dir_ / "model", dir_ / "broken", fs::copy_options::recursive);
  for (const auto& [what, text] : broken) {
    write_file(dir_ / "broken/tokenizer.json", text.first);
    for (const auto& [name, command] : readers("broken")) {
      if (name == "export gguf" || name == "eval" || name.starts_with("generate") || name == "train")
        expect_refused(what + ", " + name, command, text.second);
    }
    expect_refused(what + ", tokenize", "tokenize" + path("broken") + " the", text.second);
  }
}

TEST_F(BadInput, ATokenizerThatIsALinkToItselfIsNamedByEveryVerb) {
  const std::string message = "tokenizer.json: Too many levels of symbolic links";
  fs::copy(dir_ / "model", dir_ / "broken", fs::copy_options::recursive);
  link_to_itself(dir_ / "broken/tokenizer.json");
  for (const auto& [name, command] : readers("broken"))
    if (name != "eval --baseline" && name != "train teacher" && name != "quantize")
      expect_refused(name, command, message);
  expect_refused("tokenize", "tokenize" + path("broken") + " the", message);
}

TEST_F(BadInput, AModelThatIsALinkToItselfIsNamedByEveryVerb) {
  link_to_itself(dir_ / "loop");
  auto commands = readers("loop");
  commands["inspect"] = "inspect" + path("loop");
  commands["tokenize"] = "tokenize" + path("loop") + " the";
  for (const auto& [name, command] : commands) expect_refused(name, command, "loop: Too many levels of symbolic links");
}

TEST_F(BadInput, ANameWithControlCharactersIsWrittenOutInOneLine) {
  auto commands = readers("a\nb\x1b[31m");
  commands["inspect"] = "inspect" + path("a\nb\x1b[31m");
  commands["tokenize"] = "tokenize" + path("a\nb\x1b[31m") + " the";
  commands["another option"] = "inspect '--a\nb\x1b[31m' x";
  for (const auto& [name, command] : commands) {
    if (name.starts_with("train")) continue;  // its paths are settings, which are YAML
    const auto result = run_crumb("-q " + command);
    EXPECT_EQ(result.exit_code, 2) << name;
    EXPECT_THAT(result.err, HasSubstr("a\\nb\\x1b[31m")) << name;
    EXPECT_THAT(result.err, ::testing::Not(HasSubstr("\x1b"))) << name;
  }
}

TEST_F(BadInput, NumbersThatAnOptionCannotHoldAreRefused) {
  const std::string generate = "generate none --prompt a ", corpus = "generate none --corpus 64 --out x ";
  const std::vector<std::pair<std::string, std::string>> refused = {
      {generate + "--max-tokens 2.7", "--max-tokens: \"2.7\" is not a whole number"},
      {generate + "--max-tokens 1e308", "--max-tokens: \"1e308\" is not a whole number"},
      {generate + "--max-tokens 99999999999999999999", "--max-tokens: \"99999999999999999999\" is not a whole number"},
      {generate + "--max-tokens 0x10", "--max-tokens: \"0x10\" is not a whole number"},
      {generate + "--max-tokens=-1", "--max-tokens: -1 is out of range, expected at least 1"},
      {generate + "--temperature nan", "--temperature: \"nan\" is not a number"},
      {generate + "--temperature 1e999", "--temperature: \"1e999\" is not a number"},
      {generate + "--temperature=-0.5", "--temperature: -0.5 is out of range, expected at least 0"},
      {generate + "--top-p nan", "--top-p: \"nan\" is not a number"},
      {generate + "--top-p 1.5", "--top-p: 1.5 not in range [0 - 1]"},
      {generate + "--top-k 0.5", "--top-k: \"0.5\" is not a whole number"},
      {generate + "--seed=-1", "--seed: \"-1\" is not a whole number from 0 to 18446744073709551615"},
      {generate + "--seed 18446744073709551616", "--seed: \"18446744073709551616\" is not a whole number"},
      {generate + "--threads 1.5", "--threads: \"1.5\" is not a whole number"},
      {generate + "--threads 1e9", "--threads: 1e9 not in range [0 - 1024]"},
      {corpus + "--batch 0", "--batch: 0 is out of range, expected at least 1"},
      {corpus + "--skip-documents 1e308", "--skip-documents: \"1e308\" is not a whole number"},
      {"eval" + path("model") + " --text" + path("text.txt") + " --context 2.7", "context: expected whole number"},
      {"eval" + path("model") + " --text" + path("text.txt") + " --context 1e308", "context: expected whole number"},
      {"eval" + path("model") + " --text" + path("text.txt") + " --max-windows=-3", "max_windows: -3 is out of range"},
#ifdef CRUMB_WITH_TORCH
      {"quantize" + path("model") + " -o" + path("out/a") + " --grid int --bits 2.7",
       "method.bits: expected whole number, got \"2.7\""},
      {"quantize" + path("model") + " -o" + path("out/a") + " --grid int --bits 4 --group-size 1e308",
       "method.group_size: expected whole number, got \"1e308\""},
#endif
  };
  for (const auto& [command, message] : refused) expect_refused(command, command, message);
}

TEST_F(BadInput, APathThatIsNotUtf8IsWrittenAsJsonByEveryVerb) {
  const std::string odd = "out/\xFF";
  fs::copy(dir_ / "model", dir_ / odd, fs::copy_options::recursive);
  auto commands = readers(odd);
  commands["inspect"] = "inspect" + path(odd);
  commands["export odd"] = "export" + path("model") + " --to gguf-bf16 -o" + path(odd + ".gguf");
  commands["generate odd"] = "generate" + path("model") + " --corpus 64 --out" + path(odd + ".jsonl");
  commands["tokenize"] = "tokenize" + path(odd) + " the";
  for (const auto& [name, command] : commands) {
    if (name.starts_with("train")) continue;  // its paths are settings, which are YAML
    for (const char* made : {"out/a", "out/a.gguf", "out/a.jsonl", "out/a.md", "out/run"}) fs::remove_all(dir_ / made);
    const auto result = run_crumb("-q --json " + command);
    EXPECT_EQ(result.exit_code, 0) << name << ": " << result.err;
    EXPECT_THAT(result.err, ::testing::Not(HasSubstr("json.exception"))) << name;
    EXPECT_TRUE(Json::accept(result.out)) << name << ": " << result.out;
  }
}

TEST_F(BadInput, AFolderForTemporaryFilesThatIsAbsentIsNamed) {
  // Only a vocabulary that is tried out before training needs one.
  const std::string env =
      "env TMPDIR=" + (dir_ / "absent").string() + " CRUMB_CACHE=" + (dir_ / "cache").string() + " ";
#ifdef CRUMB_WITH_TORCH
  const auto result = testing::run_command(
      env + testing::program().string() + " -q train '" + (testing::source_dir() / "configs/qat/seq_w2.yaml").string() +
      "' model=" + (dir_ / "model").string() + " data.train=" + (dir_ / "text.txt").string() +
      " export=[gguf-bf16] schedule.tokens=64 "
      "data.sequence_length=32 output=" +
      (dir_ / "out/run").string());
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("no folder for temporary files: "));
  EXPECT_THAT(result.err, HasSubstr("(TMPDIR must name one)\n"));
#else
  GTEST_SKIP() << "training is not part of this build: " << env;
#endif
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
  write_file(dir_ / "packed.txt", std::string("\x1F\x8B\x08\0\0\0", 6));
  write_file(dir_ / "pointer.txt", kLfsPointer);
  write_file(dir_ / "nan.ndjson", "{\"text\": \"a\"}\n{\"text\": \"b\", \"x\": NaN}\n");
  for (const auto& [text, message] :
       std::map<std::string, std::string>{{"packed.txt", "packed.txt: compressed by gzip; decompress it first"},
                                          {"pointer.txt", "pointer.txt: a Git LFS pointer, not the file itself"},
                                          {"nan.ndjson", "nan.ndjson:2:20: not valid JSON: "}}) {
    expect_refused("eval", eval(text), message);
    if (text != "nan.ndjson") expect_refused("tokenize", "tokenize" + path("model") + " --file" + path(text), message);
#ifdef CRUMB_WITH_TORCH
    expect_refused("train",
                   "train '" + (testing::source_dir() / "configs/qat/seq_w2.yaml").string() +
                       "' model=" + (dir_ / "model").string() + " data.train=" + (dir_ / text).string() +
                       " schedule.tokens=64 data.sequence_length=32 output=" + (dir_ / "out/run").string(),
                   message);
#endif
  }
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
    EXPECT_TRUE(fs::is_empty(dir_ / "out")) << name;  // nothing of quantize was done that it could go on from
  }
}

}  // namespace
}  // namespace crumb
