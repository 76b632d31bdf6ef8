#include "ptq/rtn.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/common/error.h"
#include "core/common/progress.h"
#include "quant/codes_writer.h"
#include "quant/scale_search.h"

namespace crumb::ptq {
namespace {

using arch::TensorDesc;
using quant::Checkpoint;
using quant::CheckpointKind;
using quant::QuantFormat;
using quant::QuantizedTensor;
using quant::StoredTensor;

void check_source(const Checkpoint& model) {
  CRUMB_CHECK(model.kind() != CheckpointKind::codes,
              "{}: is quantized already (codes and scales); give the folder it was made from", model.path().string());
}

void check_method(const quant::MethodOptions& method) {
  CRUMB_CHECK(method.name == "rtn", "method.name: {} is not a method of quantize; known: rtn (qat is for train)",
              method.name);
}

WeightError error_of(const float* w, const QuantizedTensor& quantized) {
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

template <class T>
void append(std::vector<T>& to, const std::vector<T>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

void append_rows(QuantizedTensor& to, const QuantizedTensor& from) {
  to.rows += from.rows;
  append(to.codes, from.codes);
  append(to.scales, from.scales);
  append(to.zero_points, from.zero_points);
}

class RtnWalk {
 public:
  RtnWalk(const Checkpoint& model, const quant::MethodOptions& method, ThreadPool& pool)
      : model_(model), init_(quant::scale_init_from_name(method.init)), pool_(pool) {
    const QuantFormat format = method.format();
    for (const auto& tensor : model.tensors()) {
      if (!quant::is_quantized(tensor.desc, method)) {
        report_.kept_weights += tensor.desc.elements();
        continue;
      }
      quant::check_group_size(method.group_size, tensor.desc.cols(), tensor.desc.module_name());
      formats_[tensor.desc.hf_name] = format;
      report_.quantized_bytes += bytes_of(tensor.desc, format);
      total_ += tensor.desc.elements();
    }
    CRUMB_CHECK(!formats_.empty(), "method.exclude: leaves no linear of {} to quantize", model.path().string());
  }

  RtnReport write(const Path& folder, const std::vector<std::string>& ignore) {
    Progress progress("quantize", total_, "weights");
    quant::CodesSource source;
    source.formats = formats_;
    source.codes = [&](const TensorDesc& desc, int64_t begin, int64_t end) {
      auto block = quantize_rows(desc, begin, end);
      progress.add(block.rows * block.cols);
      return block;
    };
    source.rows = [&](const TensorDesc& desc, int64_t begin, int64_t end, float* out) { read(desc, begin, end, out); };
    quant::write_codes_folder(folder, model_, source, ignore);
    progress.finish();
    return std::move(report_);
  }

 private:
  static int64_t bytes_of(const TensorDesc& desc, const QuantFormat& format) {
    const int64_t bytes_a_group = format.has_zero_points() ? 8 : 4;  // the scale; the zero point
    return desc.rows() *
           (quant::packed_row_bytes(desc.cols(), format.bits) + bytes_a_group * format.groups(desc.cols()));
  }

  void read(const TensorDesc& desc, int64_t begin, int64_t end, float* out) const {
    const StoredTensor& tensor = model_.tensor(desc.id);
    model_.read_rows(tensor, begin, end, out);
    model_.release_rows(tensor, begin, end);
  }

  QuantizedTensor quantize_rows(const TensorDesc& desc, int64_t begin, int64_t end) {
    constexpr int64_t kTaskWeights = 1 << 17;
    const int64_t rows = end - begin, cols = desc.cols(), step = std::max<int64_t>(1, kTaskWeights / cols);
    const QuantFormat& format = formats_.at(desc.hf_name);
    std::vector<float> w(static_cast<size_t>(rows * cols));
    read(desc, begin, end, w.data());
    // Pieces of a fixed size: sums and order do not depend on the number of threads.
    std::vector<QuantizedTensor> pieces(static_cast<size_t>((rows + step - 1) / step));
    std::vector<WeightError> errors(pieces.size());
    std::vector<int64_t> clamped(pieces.size());
    pool_.parallel_for(static_cast<int64_t>(pieces.size()), 1, [&](int64_t first, int64_t last) {
      for (int64_t piece = first; piece < last; ++piece) {
        const float* values = w.data() + piece * step * cols;
        auto& out = pieces[static_cast<size_t>(piece)];
        out = quant::round_to_nearest(values, std::min(step, rows - piece * step), cols, format, init_);
        errors[static_cast<size_t>(piece)] = error_of(values, out);
        clamped[static_cast<size_t>(piece)] =
            quant::count_clamped(values, out.scales.data(), out.rows, cols, format.group_cols(cols));
      }
    });
    for (size_t i = 0; i < pieces.size(); ++i) {
      TensorError& tensor = entry_of(desc);
      tensor.error += errors[i];
      tensor.scales += static_cast<int64_t>(pieces[i].scales.size());
      tensor.clamped_scales += clamped[i];
    }
    return joined(pieces);
  }

  static QuantizedTensor joined(std::vector<QuantizedTensor>& pieces) {
    QuantizedTensor out = std::move(pieces.front());
    for (size_t i = 1; i < pieces.size(); ++i) append_rows(out, pieces[i]);
    return out;
  }

  TensorError& entry_of(const TensorDesc& desc) {
    auto& tensors = report_.tensors;
    if (tensors.empty() || tensors.back().module != desc.module_name())
      tensors.push_back({.module = desc.module_name(), .layer = desc.id.layer, .error = {}});
    return tensors.back();
  }

  const Checkpoint& model_;
  quant::ScaleInit init_;
  ThreadPool& pool_;
  std::map<std::string, QuantFormat> formats_;
  int64_t total_ = 0;
  RtnReport report_;
};

}  // namespace

double WeightError::sqnr_db() const {
  if (error_square == 0) return std::numeric_limits<double>::infinity();
  return 10 * std::log10(weight_square / error_square);
}

WeightError& WeightError::operator+=(const WeightError& other) {
  weights += other.weights;
  error_square += other.error_square;
  weight_square += other.weight_square;
  return *this;
}

WeightError RtnReport::total() const {
  WeightError sum;
  for (const auto& tensor : tensors) sum += tensor.error;
  return sum;
}

WeightError RtnReport::of_kind(const std::string& kind) const {
  WeightError sum;
  for (const auto& tensor : tensors) {
    if (tensor.kind() == kind) sum += tensor.error;
  }
  return sum;
}

std::vector<std::string> RtnReport::kinds() const {
  std::vector<std::string> out;
  for (const auto& tensor : tensors) {
    if (std::find(out.begin(), out.end(), tensor.kind()) == out.end()) out.push_back(tensor.kind());
  }
  return out;
}

double RtnReport::bits_per_weight() const {
  return 8.0 * static_cast<double>(quantized_bytes) / static_cast<double>(total().weights);
}

RtnReport quantize_rtn(const QuantizeJob& job, bool force, ThreadPool& pool) {
  check_method(job.method);
  job.method.format();  // combinations that do not exist
  quant::require_model_output(job.output, force, job.model);
  const auto model = quant::open_checkpoint(job.model);
  check_source(*model);
  quant::check_vocabulary(*model);
  quant::warn_about_dequantization(*model);
  quant::warn_unmatched_excludes(model->spec(), job.method);
  RtnWalk walk(*model, job.method, pool);
  AtomicFolder output(job.output, Overwrite{force});
  RtnReport report = walk.write(output.temporary_path(), job.method.exclude);
  if (force) quant::require_model_output(job.output, force, job.model);  // again: it may have become another folder
  output.commit();
  std::vector<quant::ClampedScales> scales;
  for (const auto& tensor : report.tensors) scales.push_back({tensor.module, tensor.clamped_scales, tensor.scales});
  quant::warn_about_clamped_scales(scales);
  return report;
}

}  // namespace crumb::ptq
