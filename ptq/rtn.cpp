#include "ptq/rtn.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <span>
#include <vector>

#include "core/common/error.h"
#include "core/common/file.h"
#include "core/common/hash.h"
#include "core/formats/imatrix.h"
#include "ptq/nearest.h"
#include "ptq/rotation.h"
#include "quant/scale_search.h"

namespace crumb::ptq {
namespace {

class RoundToNearest : public RowMethod {
 public:
  explicit RoundToNearest(quant::ScaleInit init) : init_(init) {}
  quant::QuantizedTensor quantize(const float* w, int64_t rows, int64_t cols, const quant::QuantFormat& format,
                                  const arch::TensorDesc& /*tensor*/) const override {
    return quant::round_to_nearest(w, rows, cols, format, init_);
  }

 private:
  quant::ScaleInit init_;
};

/// With the errors of the scale search weighted as an importance matrix says.
class RoundByImatrix : public RowMethod {
 public:
  RoundByImatrix(quant::ScaleInit init, const Path& file) : init_(init), file_(file) {
    CRUMB_CHECK(is_there(file),
                "method.importance: {} does not exist; it is none, activations, or a file of llama.cpp's "
                "imatrix",
                file.string());
    for (const auto& [name, squares] : formats::read_imatrix(file)) {
      hash_ = hash_bytes(hash_bytes(hash_, name),
                         {reinterpret_cast<const char*>(squares.data()), squares.size() * sizeof(float)});
      importance_[name] = input_importance(squares);
    }
  }

  void check(const quant::Checkpoint& model, const std::vector<arch::TensorDesc>& linears) const override {
    const std::string where = "method.importance: " + file_.string();
    CRUMB_CHECK(!rotation_of(model.hf_config(), model.path().string()).has_value(),
                "{} is of the model as it is, and rotation changes what its linears read", where);
    std::vector<std::string> missing;
    for (const auto& desc : linears) {
      const auto found = importance_.find(desc.gguf.name);
      if (found == importance_.end()) {
        missing.push_back(desc.gguf.name);
        continue;
      }
      CRUMB_CHECK(std::ssize(found->second) == desc.cols(), "{}: {} has {} inputs there, and {} in {}", where,
                  desc.gguf.name, found->second.size(), desc.cols(), model.path().string());
    }
    CRUMB_CHECK(missing.empty(), "{}: lacks {} of {} linears: {}{}", where, missing.size(), linears.size(),
                fmt::join(std::span(missing).first(std::min<size_t>(missing.size(), 5)), ", "),
                missing.size() > 5 ? ", ..." : "");
  }

  std::string fingerprint() const override { return fmt::format("imatrix {:016x}", hash_); }

  quant::QuantizedTensor quantize(const float* w, int64_t rows, int64_t cols, const quant::QuantFormat& format,
                                  const arch::TensorDesc& tensor) const override {
    return quant::round_to_nearest(w, rows, cols, format, init_, importance_.at(tensor.gguf.name).data());
  }

 private:
  quant::ScaleInit init_;
  Path file_;
  uint64_t hash_ = 0;
  std::map<std::string, std::vector<float>> importance_;  // by the name in GGUF
};

}  // namespace

void RtnMethod::check() const {
  linears.check(quant::scale_init_from_name(init));
  CRUMB_CHECK(importance == decltype(importance)(std::string("none")) || init == "mse",
              "method.importance: weighs the errors of init: mse; {} has none", init);
}

Method RtnMethod::make() const {
  const quant::ScaleInit scales = quant::scale_init_from_name(init);
  if (const Path* file = std::get_if<Path>(&importance)) return std::make_unique<RoundByImatrix>(scales, *file);
  if (std::get<std::string>(importance) == "activations") return make_weighted_nearest(scales);
  return std::make_unique<RoundToNearest>(scales);
}

}  // namespace crumb::ptq
