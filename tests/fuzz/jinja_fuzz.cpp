// A chat template: read, and a conversation written with it.
#include "core/jinja/template.h"
#include "tests/fuzz/fuzz.h"

namespace crumb::fuzz {

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto variables = nlohmann::ordered_json::parse(
      R"({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "<think>\né\n</think>"},
                       {"role": "assistant", "content": "b", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1.5}}}]}],
          "tools": null, "add_generation_prompt": true, "enable_thinking": false, "bos_token": "<s>", "eos_token": "</s>"})");
  survives([&] { jinja::Template(as_text(data, size), "template").render(variables, 1); });
  return 0;
}

}  // namespace crumb::fuzz
