#include "core/arch/decoder_spec.h"

#include "core/common/error.h"

namespace crumb::arch {
std::string_view architecture_name(Architecture architecture) {
  switch (architecture) {
    case Architecture::llama:
      return "llama";
    case Architecture::mistral:
      return "mistral";
    case Architecture::qwen2:
      return "qwen2";
    case Architecture::qwen3:
      return "qwen3";
    case Architecture::hunyuan_v1_dense:
      return "hunyuan_v1_dense";
  }
  CRUMB_ASSERT(false);
}

std::string_view gguf_architecture_name(Architecture architecture) {
  switch (architecture) {
    case Architecture::mistral:
      return "llama";  // GGUF has no architecture of its own for it
    case Architecture::hunyuan_v1_dense:
      return "hunyuan-dense";
    default:
      return architecture_name(architecture);
  }
}

}  // namespace crumb::arch
