// Texts as tokens in a file that is mapped: ids, which of them are supervised, and where documents begin.
//
// Layout, little-endian:
//   "CRUMBTK2", u64 key, vocabulary, tokens, unsupervised, documents, checksum
//   i32 token[tokens]           the id, or -1 - id where the token is not supervised; then 4 bytes of 0 if their number
//                               is odd
//   u64 document_begin[documents]   the first is 0; documents of no token are left out
// The checksum (hash_words of core/common/hash.h) is that of everything after the header, then of the header before it.
// It is made while the file is written and verified when it is opened, with the ids and the beginnings: that reads
// every byte, 2 GB a second or as fast as the disk.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/common/file.h"
#include "core/tokenizer/tokenizer.h"

namespace crumb::text {

using tokenizer::TokenId;

struct TokenFileHeader {
  char magic[8] = {'C', 'R', 'U', 'M', 'B', 'T', 'K', '2'};
  uint64_t key = 0;         // a hash of the texts, the separator and the tokenizer
  uint64_t vocabulary = 0;  // every id is below
  uint64_t tokens = 0, unsupervised = 0, documents = 0;
  uint64_t checksum = 0;
};

class TokenFile {
 public:
  /// UserError if the file is not whole, or not of this key and vocabulary.
  TokenFile(const Path& path, uint64_t key, int64_t vocabulary);

  uint64_t key() const { return header_.key; }
  int64_t num_tokens() const { return static_cast<int64_t>(header_.tokens); }
  int64_t num_documents() const { return static_cast<int64_t>(header_.documents); }
  bool is_all_supervised() const { return header_.unsupervised == 0; }
  int64_t document_begin(int64_t i) const { return static_cast<int64_t>(begins_[static_cast<size_t>(i)]); }
  int64_t document_end(int64_t i) const { return i + 1 < num_documents() ? document_begin(i + 1) : num_tokens(); }
  /// The first document that begins at token `at` or later; num_documents() if none does.
  int64_t first_document_from(int64_t at) const;

  TokenId id(int64_t i) const { return tokens_[static_cast<size_t>(i)] ^ (tokens_[static_cast<size_t>(i)] >> 31); }
  bool is_supervised(int64_t i) const { return tokens_[static_cast<size_t>(i)] >= 0; }

 private:
  void check_header(uint64_t key, int64_t vocabulary) const;
  void check_documents() const;
  void check_content() const;

  MappedFile file_;
  TokenFileHeader header_;
  std::span<const int32_t> tokens_;
  std::span<const uint64_t> begins_;
};

/// Writes a token file document by document. Holds a block of tokens; where documents begin goes to a temporary file
/// beside it until the end. Several processes may write one file at once: each writes its own, and the last stays.
class TokenFileWriter {
 public:
  TokenFileWriter(const Path& path, uint64_t key, int64_t vocabulary);

  /// One document. supervised[i]: whether token i is one that training is to predict; empty: all are. This is how a
  /// reader of chats says what the model is not to learn. UserError for an id beyond the vocabulary.
  void add(std::span<const TokenId> ids, std::span<const uint8_t> supervised = {});
  void commit();

  int64_t num_tokens() const { return static_cast<int64_t>(header_.tokens); }
  int64_t num_documents() const { return static_cast<int64_t>(header_.documents); }

 private:
  void check_ids(std::span<const TokenId> ids) const;
  void mark(std::span<const uint8_t> supervised);
  void write_block();

  AtomicFile file_, begins_;  // begins_ is never committed
  TokenFileHeader header_;
  std::vector<int32_t> block_;
  uint64_t hash_ = 0;  // of what was written after the header
};

}  // namespace crumb::text
