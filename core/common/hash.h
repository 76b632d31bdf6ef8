// Hashes that tell whether bytes are the same as before. Not cryptographic.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "core/common/file.h"

namespace crumb {

inline uint64_t hash_word(uint64_t h, uint64_t word) {
  h = (h ^ word) * 0xff51afd7ed558ccd;
  return h ^ (h >> 32);
}

/// Words of eight bytes, the last filled up with zeros. Pieces of a long text, each but the last a multiple of eight
/// bytes, hash to what the whole does.
inline uint64_t hash_words(uint64_t h, std::string_view bytes) {
  for (size_t i = 0; i < bytes.size(); i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i, std::min<size_t>(8, bytes.size() - i));
    h = hash_word(h, word);
  }
  return h;
}

inline uint64_t hash_bytes(uint64_t h, std::string_view bytes) { return hash_words(hash_word(h, bytes.size()), bytes); }

/// Every byte of a file.
inline uint64_t hash_file(uint64_t h, const Path& path) {
  const MappedFile file(path);
  return hash_bytes(h, {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()});
}

/// The size of a file, its first 64 kB, and 256 pieces of 4 kB spread evenly: tells other weights of the same shapes
/// apart without reading gigabytes.
inline uint64_t hash_file_sample(uint64_t h, const Path& path) {
  constexpr size_t kHead = 65536, kPieces = 256, kPiece = 4096;
  const MappedFile file(path);
  const std::string_view bytes(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  if (bytes.size() <= kHead + kPieces * kPiece) return hash_bytes(h, bytes);
  h = hash_bytes(hash_word(h, bytes.size()), bytes.substr(0, kHead));
  for (size_t i = 0; i < kPieces; ++i)
    h = hash_bytes(h, bytes.substr(kHead + (bytes.size() - kHead - kPiece) * i / (kPieces - 1), kPiece));
  return h;
}

}  // namespace crumb
