#include "ptq/rtn.h"

#include "core/common/error.h"
#include "ptq/nearest.h"
#include "quant/scale_search.h"

namespace crumb::ptq {
namespace {

class RoundToNearest : public RowMethod {
 public:
  explicit RoundToNearest(quant::ScaleInit init) : init_(init) {}
  quant::QuantizedTensor quantize(const float* w, int64_t rows, int64_t cols,
                                  const quant::QuantFormat& format) const override {
    return quant::round_to_nearest(w, rows, cols, format, init_);
  }

 private:
  quant::ScaleInit init_;
};

}  // namespace

void RtnMethod::check() const {
  linears.check(quant::scale_init_from_name(init));
  CRUMB_CHECK(importance == "none" || init == "mse", "method.importance: weighs the errors of init: mse; {} has none",
              init);
}

Method RtnMethod::make() const {
  const quant::ScaleInit scales = quant::scale_init_from_name(init);
  if (importance == "activations") return make_weighted_nearest(scales);
  return std::make_unique<RoundToNearest>(scales);
}

}  // namespace crumb::ptq
