// Reads tokenizer.json of the `tokenizers` package, with the files of Hugging Face transformers beside it.
#pragma once

#include "core/common/file.h"
#include "core/tokenizer/description.h"

namespace crumb::tokenizer {

/// `file`: tokenizer.json. Special tokens, add_bos_token and the chat template come from tokenizer_config.json,
/// special_tokens_map.json, generation_config.json, config.json and chat_template.jinja in the same folder, as far as
/// they exist. Throws UserError naming the part that is not supported or not valid.
Description read_hf_json(const Path& file);

}  // namespace crumb::tokenizer
