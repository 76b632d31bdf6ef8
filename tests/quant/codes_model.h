// A tiny model whose linears have codes and scales of many formats.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "core/common/rng.h"
#include "kernels/seq.h"
#include "quant/checkpoint.h"
#include "quant/codes_folder.h"
#include "tests/testing/testing.h"

namespace crumb::quant {

inline Path tiny_model(const std::string& name) {
  return testing::source_dir() / "tests" / "runtime" / "goldens" / name;
}

/// Random codes and scales for every linear; the format depends on the module.
struct CodesModel {
  std::unique_ptr<Checkpoint> base = open_checkpoint(tiny_model("llama_bias"));
  std::map<std::string, QuantizedTensor> tensors;

  static QuantFormat format_of(const std::string& name) {
    if (name.find("q_proj") != std::string::npos) return {Grid::intn, 4, false, 16};
    if (name.find("k_proj") != std::string::npos) return {Grid::intn, 8, true, 0};
    if (name.find("layers.1.self_attn.v_proj") != std::string::npos) return {Grid::intn, 3, false, 32, false, true};
    if (name.find("v_proj") != std::string::npos) return {Grid::intn, 3, true, 32};
    if (name.find("o_proj") != std::string::npos) return {Grid::seq, 2, true, 8};
    return {};
  }
  CodesModel() {
    for (const auto& tensor : base->tensors()) {
      if (tensor.desc.role == arch::TensorRole::linear) tensors[tensor.desc.hf_name] = random_codes(tensor.desc);
    }
  }
  static QuantizedTensor random_codes(const arch::TensorDesc& desc) {
    QuantizedTensor result{format_of(desc.hf_name), desc.rows(), desc.cols(), {}, {}, {}};
    const Rng rng(3, hash_name(desc.hf_name));
    const auto levels = uint64_t{1} << result.format.bits;
    for (int64_t i = 0; i < desc.elements(); ++i) {
      result.codes.push_back(static_cast<uint8_t>(rng.below(static_cast<uint64_t>(i), levels)));
    }
    const int64_t scales = desc.rows() * result.format.groups(desc.cols());
    for (int64_t i = 0; i < scales; ++i) {
      result.scales.push_back(kernels::round_scale(static_cast<float>(0.01 + rng.uniform(static_cast<uint64_t>(i)))));
      if (result.format.has_zero_points()) result.zero_points.push_back(static_cast<int32_t>(i % 16));
      if (result.format.has_minima) {
        const double zero_point = 3 + rng.uniform(static_cast<uint64_t>(i) + 1000000);
        result.minima.push_back(round_minimum(static_cast<float>(-zero_point * result.scales.back())));
      }
    }
    return result;
  }
  QuantizedTensor block(const std::string& name, int64_t begin, int64_t end) const {
    const auto& whole = tensors.at(name);
    const int64_t groups = whole.format.groups(whole.cols);
    QuantizedTensor part{whole.format, end - begin, whole.cols, {}, {}, {}};
    part.codes.assign(whole.codes.begin() + begin * whole.cols, whole.codes.begin() + end * whole.cols);
    part.scales.assign(whole.scales.begin() + begin * groups, whole.scales.begin() + end * groups);
    if (!whole.zero_points.empty()) {
      part.zero_points.assign(whole.zero_points.begin() + begin * groups, whole.zero_points.begin() + end * groups);
    }
    if (!whole.minima.empty())
      part.minima.assign(whole.minima.begin() + begin * groups, whole.minima.begin() + end * groups);
    if (!whole.mask.empty())
      part.mask.assign(whole.mask.begin() + begin * whole.cols, whole.mask.begin() + end * whole.cols);
    return part;
  }
  /// Prunes about a third of every linear whose grid has a level 0.
  void prune() {
    for (auto& [name, tensor] : tensors) {
      if (!has_zero(tensor.format)) continue;
      tensor.format.has_mask = true;
      tensor.mask.resize(tensor.codes.size());
      const Rng rng(5, hash_name(name));
      const float zero = 0;
      for (size_t i = 0; i < tensor.mask.size(); ++i) {
        tensor.mask[i] = rng.below(i, 3) == 0 ? 0 : 1;
        if (tensor.mask[i] != 0) continue;
        const auto group = i / static_cast<size_t>(tensor.format.group_cols(tensor.cols));
        tensor.format.grid->nearest_codes(&zero, 1, tensor.format, tensor.group(group), &tensor.codes[i]);
      }
    }
  }
  /// All tensors, as codes where the folder has a format for them.
  void write(CodesFolder& folder) const {
    for (const auto& tensor : base->tensors()) {
      const auto& desc = tensor.desc;
      if (folder.format_of(desc) != nullptr)
        folder.put(desc, 0, block(desc.hf_name, 0, desc.rows()));
      else
        folder.put(desc, 0, desc.rows(), read_all(*base, tensor).data());
      folder.finish(desc);
    }
    folder.complete();
  }
  CodesSource source() const {
    CodesSource result;
    for (const auto& [name, tensor] : tensors) result.formats[name] = tensor.format;
    result.codes = [this](const arch::TensorDesc& desc, int64_t begin, int64_t end) {
      return block(desc.hf_name, begin, end);
    };
    result.rows = [this](const arch::TensorDesc& desc, int64_t begin, int64_t end, float* out) {
      base->read_rows(base->tensor(desc.hf_name), begin, end, out);
    };
    return result;
  }
};

}  // namespace crumb::quant
