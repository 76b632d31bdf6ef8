// In place of the other files of this folder, where nvcc was not there.
#include "core/common/error.h"
#include "runtime/cuda/decoder.h"

namespace crumb::runtime {
namespace {

[[noreturn]] void refuse() {
  user_error(
      "--device cuda: this program was built without CUDA; build it where nvcc is on the PATH, with CRUMB_CUDA=ON, or "
      "use --device cpu");
}

}  // namespace

std::unique_ptr<Decoder> load_cuda_decoder(const quant::Checkpoint&, Executor&, CacheType) { refuse(); }
std::string cuda_device_name() { refuse(); }

}  // namespace crumb::runtime
