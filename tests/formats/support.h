// Support of the format tests: random data, raw files on disk, a GGUF header built field by field, the Python peers.
#pragma once

#include <gmock/gmock.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "tests/testing/testing.h"

namespace crumb::testing {

inline std::vector<uint8_t> random_bytes(size_t count, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<uint8_t> bytes(count);
  for (auto& b : bytes) b = static_cast<uint8_t>(rng());
  return bytes;
}

inline std::vector<float> random_normal(size_t count, uint32_t seed, float deviation = 1.0f) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> values(count);
  for (auto& v : values) v = normal(rng);
  return values;
}

template <class T>
void write_values(const fs::path& path, const std::vector<T>& values) {
  write_file(path, std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)));
}

template <class T>
std::vector<T> read_values(const fs::path& path) {
  const std::string text = read_file(path);
  std::vector<T> values(text.size() / sizeof(T));
  std::memcpy(values.data(), text.data(), values.size() * sizeof(T));
  return values;
}

template <class T>
std::string hex(const T* data, size_t bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (size_t i = 0; i < bytes; ++i) {
    uint8_t byte;
    std::memcpy(&byte, reinterpret_cast<const char*>(data) + i, 1);
    out += {kDigits[byte >> 4], kDigits[byte & 15]};
  }
  return out;
}

/// stdout of tests/formats/peer.py; fails the test when it ends badly.
inline std::string call_peer(const fs::path& python, const std::string& arguments) {
  const auto result =
      run_command(python.string() + " " + (source_dir() / "tests/formats/peer.py").string() + " " + arguments);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return result.out;
}

/// A GGUF file built field by field, so that any of them can be wrong.
struct RawGguf {
  std::string magic = "GGUF", keys, infos, data;
  uint32_t version = 3;
  uint64_t tensor_count = 0, key_count = 0;
  size_t alignment = 32;

  template <class T>
  static std::string pod(T value) {
    return {reinterpret_cast<const char*>(&value), sizeof value};
  }
  static std::string str(const std::string& text) { return pod<uint64_t>(text.size()) + text; }

  template <class T>
  RawGguf& key(const std::string& name, uint32_t type, T value) {
    return raw_key(name, type, pod(value));
  }
  RawGguf& raw_key(const std::string& name, uint32_t type, const std::string& bytes) {
    keys += str(name) + pod(type) + bytes;
    ++key_count;
    return *this;
  }
  /// dims in the file's order, innermost first.
  RawGguf& tensor(const std::string& name, uint32_t type, const std::vector<uint64_t>& dims, uint64_t offset) {
    infos += str(name) + pod(static_cast<uint32_t>(dims.size()));
    for (const uint64_t n : dims) infos += pod(n);
    infos += pod(type) + pod(offset);
    ++tensor_count;
    return *this;
  }
  std::string header() const {
    std::string out = magic + pod(version) + pod(tensor_count) + pod(key_count) + keys + infos;
    if (tensor_count > 0) out.append((alignment - out.size() % alignment) % alignment, '\0');
    return out;
  }
  std::string text() const { return header() + data; }
};

}  // namespace crumb::testing

/// The short names of every test in this folder.
namespace crumb::formats {
using namespace crumb::testing;
using ::testing::HasSubstr;
}  // namespace crumb::formats
