// llama.cpp's importance matrices: of each weight matrix, how large its inputs are on a text. Both forms that
// llama.cpp's tools/imatrix writes are read.
//
//   GGUF:  general.type "imatrix", imatrix.datasets (names of texts), imatrix.chunk_count, imatrix.chunk_size (tokens);
//          float32 tensors NAME.in_sum2 [matrices, cols], sums of squares over tokens, and NAME.counts [matrices],
//          their number; NAME.in_sum, sums, may stand beside them. NAME is the tensor's in a GGUF of the model:
//          "blk.0.attn_q.weight". matrices: 1, or the experts.
//   .dat:  little-endian: int32 entries; of each int32 length and name, int32 calls, int32 cols, float32 [cols] (mean
//          square * calls); then int32 calls, int32 length and the text's name, which older files lack.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/common/file.h"

namespace crumb::formats {

/// Mean squares of the inputs, by the name of the tensor in GGUF.
using MeanSquares = std::map<std::string, std::vector<float>>;

/// Either form, whatever the name of the file. A matrix that no token reached weighs all inputs 1, as llama.cpp has it,
/// with a warning that names it. UserError naming the file and the tensor for anything malformed, sums that are
/// negative or not finite, and counts that are no number of tokens.
MeanSquares read_imatrix(const Path& path);

/// What an importance matrix says of its text.
struct ImatrixText {
  std::vector<std::string> names;
  int64_t windows = 0, window_tokens = 0;
};
/// The GGUF form. UserError if the file exists, but for Overwrite::yes.
void write_imatrix(const Path& path, const MeanSquares& mean_squares, const ImatrixText& text, Overwrite overwrite);

}  // namespace crumb::formats
