#include "ptq/row_walk.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/common/log.h"
#include "core/common/progress.h"
#include "core/common/quantity.h"
#include "quant/codes_parts.h"
#include "quant/row_blocks.h"
#include "quant/scale_search.h"

namespace crumb::ptq {
namespace {

using arch::TensorDesc;
using quant::QuantFormat;
using quant::QuantizedTensor;
using quant::StoredTensor;

std::vector<float> read(const quant::Checkpoint& model, const StoredTensor& tensor, int64_t begin, int64_t end) {
  std::vector<float> values(static_cast<size_t>((end - begin) * tensor.desc.cols()));
  model.read_rows(tensor, begin, end, values.data());
  model.release_rows(tensor, begin, end);
  return values;
}

class RowWalk {
 public:
  RowWalk(const quant::Checkpoint& model, quant::CodesFolder& folder, const RowMethod& method,
          const PruningOptions& pruning, ThreadPool& pool)
      : model_(model), folder_(folder), method_(method), pruning_(pruning), pool_(pool) {}

  QuantizeReport run() {
    int64_t linears = 0, finished = 0, weights = 0;
    for (const auto& tensor : model_.tensors()) {
      const QuantFormat* format = folder_.format_of(tensor.desc);
      if (format == nullptr) continue;
      report_.quantized_bytes += quant::codes_bytes(tensor.desc.rows(), tensor.desc.cols(), *format);
      ++linears;
      finished += folder_.is_finished(tensor.desc) ? 1 : 0;
      weights += folder_.is_finished(tensor.desc) ? 0 : tensor.desc.elements();
    }
    if (finished > 0) log_info("going on: {} of {} linears are done", finished, linears);
    Progress progress("quantize", weights, "weights");
    put_kept_tensors(model_, folder_, report_);
    for (const auto& tensor : model_.tensors()) {
      if (folder_.format_of(tensor.desc) != nullptr) quantize(tensor, progress);
    }
    progress.finish();
    return std::move(report_);
  }

 private:
  void quantize(const StoredTensor& tensor, Progress& progress) {
    const TensorDesc& desc = tensor.desc;
    if (folder_.is_finished(desc)) {
      report_.tensors.push_back(from_note(folder_.note(desc)));
      return;
    }
    TensorError error{.module = desc.module_name(), .layer = desc.id.layer, .error = {}};
    quant::for_each_row_block(desc.rows(), desc.cols(), [&](int64_t begin, int64_t end) {
      quantize_rows(desc, begin, end, read(model_, tensor, begin, end), error);
      progress.add((end - begin) * desc.cols());
    });
    folder_.finish(desc, to_note(error));
    report_.tensors.push_back(std::move(error));
  }

  void quantize_rows(const TensorDesc& desc, int64_t begin, int64_t end, const std::vector<float>& w,
                     TensorError& error) {
    constexpr int64_t kTaskWeights = 1 << 17;
    const int64_t rows = end - begin, cols = desc.cols(), step = std::max<int64_t>(1, kTaskWeights / cols);
    const QuantFormat& format = *folder_.format_of(desc);
    // Pieces of a fixed size: sums and order do not depend on the number of threads.
    struct Piece {
      QuantizedTensor rows;
      std::vector<float> kept;  // what is rounded, where weights are pruned
      WeightError error;
      int64_t clamped = 0;
    };
    std::vector<Piece> pieces(static_cast<size_t>((rows + step - 1) / step));
    pool_.parallel_for(static_cast<int64_t>(pieces.size()), 1, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const float* values = w.data() + i * step * cols;
        Piece& piece = pieces[static_cast<size_t>(i)];
        const int64_t count = std::min(step, rows - i * step);
        std::vector<uint8_t> mask;
        if (pruning_.prunes()) {
          mask = choose_mask(values, count, cols, nullptr, pruning_.amount());
          piece.kept = masked(values, mask);
        }
        const float* rounded = pruning_.prunes() ? piece.kept.data() : values;
        piece.rows = method_.quantize(rounded, count, cols, format, desc);
        piece.rows.mask = std::move(mask);
        piece.error = weight_error(values, piece.rows);
        piece.clamped = quant::count_clamped(rounded, piece.rows.scales.data(), piece.rows.rows, cols, format);
      }
    });
    for (int64_t i = 0; i < std::ssize(pieces); ++i) {
      const Piece& piece = pieces[static_cast<size_t>(i)];
      const float* masters = pruning_.prunes() ? piece.kept.data() : w.data() + i * step * cols;
      if (folder_.keeps_masters()) folder_.put_masters(desc, begin, begin + piece.rows.rows, masters);
      folder_.put(desc, begin, piece.rows);
      begin += piece.rows.rows;
      error.error += piece.error;
      error.scales += static_cast<int64_t>(piece.rows.scales.size());
      error.clamped_scales += piece.clamped;
      error.pruned += std::ranges::count(piece.rows.mask, 0);
    }
  }

  const quant::Checkpoint& model_;
  quant::CodesFolder& folder_;
  const RowMethod& method_;
  const PruningOptions& pruning_;
  ThreadPool& pool_;
  QuantizeReport report_;
};

}  // namespace

WeightError weight_error(const float* w, const QuantizedTensor& quantized) {
  std::vector<float> values(quantized.codes.size());
  quantized.dequantize(values.data());
  WeightError error{.weights = static_cast<int64_t>(values.size())};
  for (size_t i = 0; i < values.size(); ++i) {
    const double difference = static_cast<double>(w[i]) - values[i];
    error.error_square += difference * difference;
    error.weight_square += static_cast<double>(w[i]) * w[i];
  }
  return error;
}

void put_kept_tensors(const quant::Checkpoint& model, quant::CodesFolder& folder, QuantizeReport& report,
                      const std::function<bool(const TensorDesc&)>& comes_later) {
  for (const auto& tensor : model.tensors()) {
    const TensorDesc& desc = tensor.desc;
    if (folder.format_of(desc) != nullptr) continue;
    report.kept_weights += desc.elements();
    if (folder.is_finished(desc) || comes_later(desc)) continue;
    quant::for_each_row_block(desc.rows(), desc.cols(), [&](int64_t begin, int64_t end) {
      folder.put(desc, begin, end, read(model, tensor, begin, end).data());
    });
    folder.finish(desc);
  }
}

QuantizeReport walk_rows(const quant::Checkpoint& model, quant::CodesFolder& folder, const RowMethod& method,
                         const PruningOptions& pruning, ThreadPool& pool) {
  return RowWalk(model, folder, method, pruning, pool).run();
}

}  // namespace crumb::ptq
