// HF config.json <-> DecoderSpec. Accepts both styles: rope_theta + rope_scaling, and transformers 5's rope_parameters.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "core/arch/decoder_spec.h"
#include "core/common/file.h"

namespace crumb::arch {

/// `where` names the file in messages. UserError: unknown model_type (lists the known ones), a missing or impossible
/// value, an option that is not supported (another activation, another rope type).
DecoderSpec spec_from_hf_config(const nlohmann::json& config, const std::string& where);
/// Reads DIR/config.json, or the file itself.
DecoderSpec load_hf_spec(const Path& path);
/// config.json that transformers' Auto classes load as the same model. bos/eos ids are not part of the spec: add them
/// where known. UserError where config.json has no way to say it (two sizes of windows, some of the biases).
nlohmann::json hf_config_from_spec(const DecoderSpec& spec);

}  // namespace crumb::arch
