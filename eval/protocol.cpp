#include "eval/protocol.h"

#include <algorithm>

#include "core/common/error.h"
#include "core/text/text_file.h"

namespace crumb::eval {
namespace {

struct NamedProtocol {
  PerplexityProtocol protocol;
  std::string_view name;
};
constexpr NamedProtocol kProtocols[] = {{PerplexityProtocol::windows, "windows"},
                                        {PerplexityProtocol::gptq, "gptq"},
                                        {PerplexityProtocol::llamacpp, "llama.cpp"}};

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
  user_error("--protocol: unknown \"{}\"; known: windows, gptq, llama.cpp", name);
}

std::string_view name_of(PerplexityProtocol protocol) {
  return std::ranges::find(kProtocols, protocol, &NamedProtocol::protocol)->name;
}

int64_t usual_context(PerplexityProtocol protocol) { return protocol == PerplexityProtocol::llamacpp ? 512 : 2048; }

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
