#include "core/text/token_file.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <functional>

#include "core/common/error.h"
#include "core/common/hash.h"
#include "core/text/release_behind.h"

namespace crumb::text {
namespace {

using Header = TokenFileHeader;

constexpr size_t kBlockBytes = size_t{1} << 18;  // whole words of the hash
constexpr size_t kBlockTokens = kBlockBytes / sizeof(int32_t);

std::string_view as_text(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::span<const uint8_t> block_at(std::span<const uint8_t> bytes, size_t at) {
  return bytes.subspan(at, std::min(kBlockBytes, bytes.size() - at));
}

uint64_t size_of_tokens(uint64_t tokens) { return (tokens + tokens % 2) * sizeof(int32_t); }

uint64_t hash_of_header(uint64_t h, const Header& header) {
  return hash_words(h, {reinterpret_cast<const char*>(&header), offsetof(Header, checksum)});
}

}  // namespace

TokenFile::TokenFile(const Path& path, uint64_t key, int64_t vocabulary) : file_(path) {
  const auto bytes = file_.bytes();
  if (bytes.size() >= sizeof header_) std::memcpy(&header_, bytes.data(), sizeof header_);
  check_header(key, vocabulary);
  const uint8_t* tokens = bytes.data() + sizeof header_;
  tokens_ = {reinterpret_cast<const int32_t*>(tokens), header_.tokens};
  begins_ = {reinterpret_cast<const uint64_t*>(tokens + size_of_tokens(header_.tokens)), header_.documents};
  check_documents();
  check_content();
}

void TokenFile::check_header(uint64_t key, int64_t vocabulary) const {
  const std::string name = file_.path().string();
  const auto size = static_cast<uint64_t>(file_.size());
  CRUMB_CHECK(size >= sizeof header_ && std::memcmp(file_.bytes().data(), Header{}.magic, sizeof header_.magic) == 0,
              "{}: not a token file", name);
  CRUMB_CHECK(header_.key == key && header_.vocabulary == static_cast<uint64_t>(vocabulary),
              "{}: a token file of another text or tokenizer", name);
  const bool fits = header_.tokens < size && header_.documents < size &&  // so that nothing overflows
                    size == sizeof header_ + size_of_tokens(header_.tokens) + header_.documents * sizeof(uint64_t);
  CRUMB_CHECK(fits, "{}: damaged: {} bytes for {} tokens and {} documents", name, size, header_.tokens,
              header_.documents);
}

void TokenFile::check_documents() const {
  const bool are_inside = begins_.empty() ? tokens_.empty() : begins_.front() == 0 && begins_.back() < tokens_.size();
  const bool ascend = std::adjacent_find(begins_.begin(), begins_.end(), std::greater_equal<>()) == begins_.end();
  CRUMB_CHECK(are_inside && ascend, "{}: damaged: its documents do not follow each other", file_.path().string());
}

void TokenFile::check_content() const {
  const auto content = file_.bytes().subspan(sizeof header_);
  uint64_t hash = 0, unsupervised = 0;
  uint32_t largest = 0;
  ReleaseBehind behind(file_);
  for (size_t at = 0; at < content.size(); at += kBlockBytes) {
    const auto block = block_at(content, at);
    hash = hash_words(hash, as_text(block));
    const size_t first = std::min(at / sizeof(int32_t), tokens_.size());
    for (const int32_t token : tokens_.subspan(first, std::min(kBlockTokens, tokens_.size() - first))) {
      largest = std::max(largest, static_cast<uint32_t>(token ^ (token >> 31)));
      unsupervised += token < 0 ? 1 : 0;
    }
    behind.pass(block.data());
  }
  const std::string name = file_.path().string();
  CRUMB_CHECK(tokens_.empty() || largest < header_.vocabulary,
              "{}: damaged: token id {} is beyond the vocabulary of {}", name, largest, header_.vocabulary);
  CRUMB_CHECK(unsupervised == header_.unsupervised && hash_of_header(hash, header_) == header_.checksum,
              "{}: damaged: its checksum is another", name);
}

int64_t TokenFile::first_document_from(int64_t at) const {
  return std::lower_bound(begins_.begin(), begins_.end(), static_cast<uint64_t>(at)) - begins_.begin();
}

TokenFileWriter::TokenFileWriter(const Path& path, uint64_t key, int64_t vocabulary)
    : file_(path), begins_(path.string() + ".begins") {
  header_.key = key;
  header_.vocabulary = static_cast<uint64_t>(vocabulary);
  block_.reserve(kBlockTokens);
  file_.write_zeros(sizeof header_);
}

void TokenFileWriter::add(std::span<const TokenId> ids, std::span<const uint8_t> supervised) {
  CRUMB_ASSERT(supervised.empty() || supervised.size() == ids.size());
  if (ids.empty()) return;
  check_ids(ids);
  begins_.write(&header_.tokens, sizeof header_.tokens);
  ++header_.documents;
  header_.tokens += ids.size();
  for (size_t done = 0; done < ids.size();) {
    const size_t count = std::min(ids.size() - done, kBlockTokens - block_.size());
    const auto part = ids.subspan(done, count);
    block_.insert(block_.end(), part.begin(), part.end());
    if (!supervised.empty()) mark(supervised.subspan(done, count));
    if (block_.size() == kBlockTokens) write_block();
    done += count;
  }
}

void TokenFileWriter::check_ids(std::span<const TokenId> ids) const {
  uint32_t largest = 0;
  for (const TokenId id : ids) largest = std::max(largest, static_cast<uint32_t>(id));
  CRUMB_CHECK(largest < header_.vocabulary, "{}: token id {} is beyond the vocabulary of {}", file_.path().string(),
              static_cast<TokenId>(largest), header_.vocabulary);
}

/// The last tokens of the block.
void TokenFileWriter::mark(std::span<const uint8_t> supervised) {
  int32_t* tokens = block_.data() + block_.size() - supervised.size();
  for (size_t i = 0; i < supervised.size(); ++i) {
    if (supervised[i] != 0) continue;
    tokens[i] = ~tokens[i];
    ++header_.unsupervised;
  }
}

void TokenFileWriter::write_block() {
  const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(block_.data()),
                                       block_.size() * sizeof(int32_t));
  hash_ = hash_words(hash_, as_text(bytes));
  file_.write(as_text(bytes));
  block_.clear();
}

void TokenFileWriter::commit() {
  if (header_.tokens % 2 != 0) block_.push_back(0);
  write_block();
  begins_.flush();
  const MappedFile begins(begins_.temporary_path());
  ReleaseBehind behind(begins);
  for (size_t at = 0; at < begins.bytes().size(); at += kBlockBytes) {
    const auto block = block_at(begins.bytes(), at);
    hash_ = hash_words(hash_, as_text(block));
    file_.write(as_text(block));
    behind.pass(block.data());
  }
  header_.checksum = hash_of_header(hash_, header_);
  file_.rewrite(0, &header_, sizeof header_);
  file_.commit();
}

}  // namespace crumb::text
