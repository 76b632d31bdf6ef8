// Calls one kernel a given number of times on made-up numbers, for counting what a call takes (bench/instructions.py).
//   kernel_calls                      the names of the kernels, a line each
//   kernel_calls ISA KERNEL CALLS
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/code_matmul.h"
#include "kernels/matmul.h"

namespace {

using namespace crumb;
using kernels::Isa;

constexpr int64_t kRows = 64, kCols = 512;

struct CodesCase {
  int bits;
  int64_t group_cols, tokens;
  bool int8;
};

std::function<void(Isa)> multiply_codes(const CodesCase& c) {
  return [c,
          codes = std::vector<uint8_t>(
              static_cast<size_t>(kRows / kernels::kCodePanelRows * kernels::code_panel_bytes(kCols, c.bits)),
              uint8_t{0x1b}),
          scales = std::vector<float>(static_cast<size_t>(kRows * kCols / c.group_cols), 0.5f),
          activations = std::vector<int8_t>(static_cast<size_t>(c.tokens * kernels::int8_stride(kCols)), int8_t{3}),
          floats = std::vector<float>(static_cast<size_t>(c.tokens * kCols), 0.25f),
          token_scales = std::vector<float>(static_cast<size_t>(c.tokens * kCols), 0.5f),
          sums = std::vector<int32_t>(static_cast<size_t>(c.tokens * kCols / c.group_cols), 7),
          y = std::vector<float>(static_cast<size_t>(c.tokens * kRows))](Isa isa) mutable {
    const kernels::CodeMatrix matrix{.bits = c.bits,
                                     .rows = kRows,
                                     .cols = kCols,
                                     .group_cols = c.group_cols,
                                     .zero = 1,
                                     .codes = codes.data(),
                                     .scales = scales.data()};
    const kernels::CodeProduct product{matrix, nullptr, y.data()};
    const kernels::Int8Tokens x{activations.data(),  c.tokens, kCols,        kernels::int8_stride(kCols),
                                token_scales.data(), kCols,    c.group_cols, sums.data()};
    if (c.int8)
      kernels::code_matmul(x, {&product, 1}, serial_executor(), isa);
    else
      kernels::code_matmul(floats.data(), c.tokens, {&product, 1}, serial_executor(), isa);
  };
}

std::function<void(Isa)> multiply_floats(int64_t tokens) {
  return [tokens, w = std::vector<float>(static_cast<size_t>(kernels::packed_size(kRows, kCols)), 0.5f),
          x = std::vector<float>(static_cast<size_t>(tokens * kCols), 0.25f),
          y = std::vector<float>(static_cast<size_t>(tokens * kRows))](Isa isa) mutable {
    kernels::matmul({x.data(), kCols, tokens, w.data(), nullptr, kRows, kCols, y.data(), kRows, true},
                    serial_executor(), isa);
  };
}

std::map<std::string, std::function<void(Isa)>> all() {
  std::map<std::string, std::function<void(Isa)>> kernels;
  for (const int64_t tokens : {1, 8, 32}) {
    const std::string where = "_" + std::to_string(tokens) + "_tokens";
    kernels["codes_2bit_row_int8" + where] = multiply_codes({2, kCols, tokens, true});
    kernels["codes_2bit_g64_int8" + where] = multiply_codes({2, 64, tokens, true});
    kernels["codes_4bit_g32_int8" + where] = multiply_codes({4, 32, tokens, true});
    kernels["codes_8bit_row_int8" + where] = multiply_codes({8, kCols, tokens, true});
    if (tokens != 8) {
      kernels["codes_2bit_row_float" + where] = multiply_codes({2, kCols, tokens, false});
      kernels["floats" + where] = multiply_floats(tokens);
    }
  }
  return kernels;
}

Isa isa_of(std::string_view name) {
  for (const Isa isa : kernels::available_isas()) {
    if (kernels::isa_name(isa) == name) return isa;
  }
  std::fprintf(stderr, "kernel_calls: no instruction set %s on this machine\n", std::string(name).c_str());
  std::exit(2);
}

}  // namespace

int main(int argc, char** argv) {
  auto kernels = all();
  if (argc == 1) {
    for (const auto& [name, call] : kernels) std::puts(name.c_str());
    return 0;
  }
  const auto found = argc == 4 ? kernels.find(argv[2]) : kernels.end();
  if (found == kernels.end()) {
    std::fprintf(stderr, "kernel_calls: usage: kernel_calls [ISA KERNEL CALLS]\n");
    return 2;
  }
  const Isa isa = isa_of(argv[1]);
  for (int i = std::atoi(argv[3]); i > 0; --i) found->second(isa);
  return 0;
}
