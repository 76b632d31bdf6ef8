#include "ptq/rtn.h"

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

void RtnMethod::check() const { linears.check(quant::scale_init_from_name(init)); }

Method RtnMethod::make() const { return std::make_unique<RoundToNearest>(quant::scale_init_from_name(init)); }

}  // namespace crumb::ptq
