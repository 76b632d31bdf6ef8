#include "eval/protocol.h"

#include <algorithm>
#include <limits>

#include "core/common/error.h"
#include "core/text/text_file.h"
#include "core/tokenizer/unicode.h"
#include "eval/written_answers.h"

namespace crumb::eval {
namespace {

struct NamedProtocol {
  PerplexityProtocol protocol;
  std::string_view name;
};
constexpr NamedProtocol kProtocols[] = {{PerplexityProtocol::windows, "windows"},
                                        {PerplexityProtocol::gptq, "gptq"},
                                        {PerplexityProtocol::llamacpp, "llama.cpp"},
                                        {PerplexityProtocol::rolling, "rolling"}};

/// What \s of Python's regular expressions matches.
bool is_python_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

/// The rows of the Hugging Face set, joined.
std::string joined_rows(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
    const std::string_view line = text.substr(at, end - at);
    if (at > 0) out += "\n\n";
    if (line.find_first_not_of(" \t\r\n\v\f") != std::string_view::npos) out += line;
    at = end;
  }
  return out;
}

}  // namespace

PerplexityProtocol protocol_from_name(const std::string& name) {
  for (const auto& known : kProtocols) {
    if (known.name == name) return known.protocol;
  }
  user_error("--protocol: unknown \"{}\"; known: windows, gptq, llama.cpp, rolling", name);
}

std::string_view name_of(PerplexityProtocol protocol) {
  return std::ranges::find(kProtocols, protocol, &NamedProtocol::protocol)->name;
}

int64_t usual_context(PerplexityProtocol protocol) {
  if (protocol == PerplexityProtocol::rolling) return std::numeric_limits<int64_t>::max();
  return protocol == PerplexityProtocol::llamacpp ? 512 : 2048;
}

int64_t count_words(std::string_view text) {
  int64_t runs = 0;
  bool in_space = false;
  for (size_t at = 0; at < text.size();) {
    const auto next = tokenizer::decode_utf8(text.data() + at);
    const bool space = is_python_space(next.value);
    runs += space && !in_space ? 1 : 0;
    in_space = space;
    at += next.size;
  }
  return runs + 1;
}

RollingStream rolling_stream(const tokenizer::Tokenizer& tokenizer, std::span<const text::TextDocuments> texts) {
  const auto prefix = first_token(tokenizer);
  CRUMB_CHECK(prefix, "--protocol rolling: the tokenizer has neither BOS nor EOS to stand before a document");
  RollingStream out;
  auto& ids = out.stream.ids;
  out.stream.text_begin.push_back(0);
  for (const auto& text : texts) {
    for (const auto& document : text.documents) {
      const auto tokens = tokenizer.encode(document, true);
      if (tokens.empty()) continue;
      const int64_t begin = out.stream.size();
      ids.push_back(*prefix);
      ids.insert(ids.end(), tokens.begin(), tokens.end());
      out.documents.push_back({begin, out.stream.size(), count_words(document), std::ssize(document)});
    }
    out.stream.text_begin.push_back(out.stream.size());
  }
  out.stream.has_bos = tokenizer.special().bos.has_value();
  return out;
}

std::vector<text::Window> rolling_windows(std::span<const RollingDocument> documents, int64_t context) {
  std::vector<text::Window> windows;
  for (const auto& document : documents) {
    const int64_t tokens = document.end - document.begin - 1;  // to predict
    for (int64_t done = 0; done < tokens; done += context) {
      const int64_t begin = std::max<int64_t>(0, std::min(done, tokens - context));
      windows.push_back({document.begin + begin, done - begin});
    }
  }
  return windows;
}

text::TokenStream protocol_stream(PerplexityProtocol protocol, const tokenizer::Tokenizer& tokenizer,
                                  const Path& path) {
  CRUMB_CHECK(!text::TextFile(path).is_json(), "{}: --protocol {} takes a plain text, such as wiki.test.raw",
              path.string(), name_of(protocol));
  const std::string bytes = read_text(path);
  std::string_view text = text::checked_text(bytes, path.string());
  text::TokenStream stream;
  if (protocol == PerplexityProtocol::gptq) {
    stream.ids = tokenizer.encode(joined_rows(text), true);
  } else {
    if (text.ends_with('\n')) text.remove_suffix(1);
    stream.ids = tokenizer.encode(text, true, false);
  }
  stream.text_begin = {0, stream.size()};
  stream.has_bos = tokenizer.special().add_bos;
  return stream;
}

std::vector<text::Window> protocol_windows(PerplexityProtocol protocol, const tokenizer::Tokenizer& tokenizer,
                                           int64_t context, int64_t max_windows, text::TokenStream& stream) {
  CRUMB_CHECK(protocol != PerplexityProtocol::llamacpp || context >= 4,
              "--protocol llama.cpp: predicts the second half of a window, which a context of {} has not", context);
  const int64_t all = stream.size() / context, count = max_windows > 0 ? std::min(all, max_windows) : all;
  const bool is_llamacpp = protocol == PerplexityProtocol::llamacpp;
  const auto& special = tokenizer.special();
  std::vector<text::Window> windows;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t begin = i * context;
    windows.push_back({begin, is_llamacpp ? context / 2 : 0});
    if (is_llamacpp && special.add_bos && special.bos) stream.ids[static_cast<size_t>(begin)] = *special.bos;
  }
  return windows;
}

}  // namespace crumb::eval
