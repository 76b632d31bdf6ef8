// Texts for the tests of the tokenizer.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "core/common/rng.h"
#include "core/tokenizer/unicode.h"
#include "tests/testing/testing.h"

namespace crumb::tokenizer {

/// How texts travel to the peers, bytes that are no UTF-8 included.
inline std::string to_hex(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) out += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return out;
}

/// The texts of llama.cpp's parity sets.
inline std::vector<std::string> parity_texts(const testing::fs::path& file) {
  const std::string all = testing::read_file(file), separator = "\n__ggml_vocab_test__\n";
  std::vector<std::string> texts;
  for (size_t begin = 0; begin < all.size();) {
    const size_t end = std::min(all.find(separator, begin), all.size());
    texts.push_back(all.substr(begin, end - begin));
    begin = end + separator.size();
  }
  return texts;
}

/// Any character, the more often the lower its plane; also those that no version of Unicode has assigned.
inline uint32_t random_character(const Rng& rng, uint64_t index) {
  for (uint64_t attempt = 0;; ++attempt) {
    const uint32_t planes[] = {0x800, 0x3000, 0x10000, 0x20000, 0x32400};
    const auto limit = planes[rng.below(7919 * index + 2 * attempt, 5)];
    const auto c = static_cast<uint32_t>(rng.below(7919 * index + 2 * attempt + 1, limit));
    if (c < 0xd800 || c >= 0xe000) return c;
  }
}

/// Every `step`-th character, alone and between letters.
inline std::vector<std::string> characters(uint32_t step) {
  std::vector<std::string> texts;
  for (uint32_t c = 1; c < 0x110000; c += step) {
    // Surrogates, and planes of which nothing is assigned.
    if ((c >= 0xd800 && c < 0xe000) || (c >= 0x32400 && c < 0xe0000) || (c >= 0xe0200 && c < 0x10fff0)) continue;
    std::string text;
    append_utf8(c, text);
    texts.push_back(text);
    texts.push_back("a" + text + "b");
  }
  return texts;
}

/// Whether the tests that take minutes run too (CRUMB_LONG_TESTS): every character, 30,000 mixtures, all names.
inline bool runs_long() { return std::getenv("CRUMB_LONG_TESTS") != nullptr; }

/// Words, numbers, contractions, all kinds of white space, marks, scripts, added tokens, stuck together at random.
inline std::string random_text(uint64_t seed, int num_parts) {
  static const std::vector<std::string> parts = {" ",
                                                 " ",
                                                 " ",
                                                 "  ",
                                                 "\n",
                                                 "\n\n",
                                                 "\r\n",
                                                 "\t",
                                                 "   ",
                                                 "'",
                                                 "'s",
                                                 "'S",
                                                 "'ll",
                                                 "'LL",
                                                 "'rE",
                                                 "'\xc5\xbf",
                                                 "'d",
                                                 "'m",
                                                 "x",
                                                 "the",
                                                 "The",
                                                 "word",
                                                 "words",
                                                 "password word",
                                                 "er",
                                                 "1",
                                                 "23",
                                                 "456",
                                                 "7890",
                                                 "\u0663",
                                                 "\u00bd",
                                                 ".",
                                                 ",",
                                                 "!?",
                                                 "--",
                                                 "...",
                                                 "=",
                                                 "(",
                                                 ")",
                                                 "#",
                                                 "\u2026",
                                                 "\u3002",
                                                 "\u00e9",
                                                 "e\u0301",
                                                 "Cafe\u0301",
                                                 "Caf\u00e9",
                                                 "\u0301",
                                                 "\u212b",
                                                 "\ufb01",
                                                 "\u1e9b\u0323",
                                                 "\uac00",
                                                 "\u1100\u1161\u11a8",
                                                 "\u4f60\u597d",
                                                 "\u65e5\u672c",
                                                 "\u304b\u3099",
                                                 "\u043f\u0440\u0438",
                                                 "\u0130",
                                                 "\u03a3",
                                                 "\U0001f600",
                                                 "\U0001f468\u200d\U0001f469",
                                                 "\u00a0",
                                                 "\u2003",
                                                 "\u3000",
                                                 "\u180e",
                                                 "\u0085",
                                                 "\u2028",
                                                 "\u200b",
                                                 "\ufeff",
                                                 "\u2581",
                                                 "\u2581\u2581",
                                                 "<|im_start|>",
                                                 "<|im_start|>x",
                                                 " <mask>",
                                                 "<mask>",
                                                 "[R]",
                                                 "<s>",
                                                 "<unk>",
                                                 "<0x0A>",
                                                 "<|endoftext|>",
                                                 std::string(1, '\0')};
  const Rng rng(seed);
  std::string out;
  for (int i = 0; i < num_parts; ++i) {
    const auto index = static_cast<uint64_t>(3 * i);
    if (rng.below(index, 6) == 0)
      append_utf8(random_character(Rng(seed, 1), index), out);
    else
      out += parts[rng.below(index + 1, parts.size())];
  }
  return out;
}

inline std::string random_bytes(uint64_t seed, int size) {
  const Rng rng(seed);
  std::string out;
  for (int i = 0; i < size; ++i) {
    const auto index = static_cast<uint64_t>(2 * i);
    // Lead and continuation bytes often enough for sequences that are almost well-formed.
    const uint64_t low = rng.below(index, 2) == 0 ? 0x20 : 0x80;
    out += static_cast<char>(low + rng.below(index + 1, 256 - low));
  }
  return out;
}

}  // namespace crumb::tokenizer
