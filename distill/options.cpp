#include "distill/options.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <string_view>

#include "core/common/error.h"

namespace crumb::distill {
namespace {

int parse_layer(std::string_view text, const std::string& pair, const char* whose, int64_t layers) {
  int layer = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), layer);
  CRUMB_CHECK(error == std::errc() && end == text.data() + text.size(),
              "objective.hidden_layers: \"{}\" is not a pair of layers such as \"0:3\" (student:teacher)", pair);
  CRUMB_CHECK(layer >= 0 && layer < layers, "objective.hidden_layers: \"{}\": the {} has layers 0 to {}", pair, whose,
              layers - 1);
  return layer;
}

}  // namespace

kernels::LogitLossSpec logit_loss_spec(const ObjectiveOptions& o) {
  return {.weights = {.kl = o.kl,
                      .reverse_kl = o.reverse_kl,
                      .jsd = o.jsd,
                      .cakld = o.cakld,
                      .cross_entropy = o.cross_entropy},
          .temperature = o.temperature,
          .jsd_beta = o.jsd_beta};
}

bool uses_logits(const ObjectiveOptions& options) {
  return options.cross_entropy != 0 || kernels::needs_teacher(logit_loss_spec(options).weights);
}

HiddenNormalize hidden_normalize(const ObjectiveOptions& options) {
  const std::string& name = options.hidden_normalize;
  if (name == "window") return HiddenNormalize::window;
  if (name == "token") return HiddenNormalize::token;
  CRUMB_CHECK(name == "none", "objective.hidden_normalize: unknown \"{}\"; known: window, token, none", name);
  return HiddenNormalize::none;
}

void check_weights(const ObjectiveOptions& options) {
  CRUMB_CHECK(uses_logits(options) || options.hidden_mse != 0,
              "objective: all weights are 0; give at least one of kl, reverse_kl, jsd, cakld, hidden_mse, "
              "cross_entropy");
}

bool needs_teacher(const ObjectiveOptions& options) {
  return options.hidden_mse != 0 || kernels::needs_teacher(logit_loss_spec(options).weights);
}

std::vector<std::pair<int, int>> hidden_layer_map(const ObjectiveOptions& options, int64_t student_layers,
                                                  int64_t teacher_layers) {
  std::map<int, int> map;
  for (const std::string& pair : options.hidden_layers) {
    const size_t colon = std::min(pair.find(':'), pair.size());
    const std::string_view text = pair;
    const int mine = parse_layer(text.substr(0, colon), pair, "model", student_layers);
    const int teachers = parse_layer(text.substr(std::min(colon + 1, pair.size())), pair, "teacher", teacher_layers);
    CRUMB_CHECK(map.emplace(mine, teachers).second, "objective.hidden_layers: layer {} of the model appears twice",
                mine);
  }
  if (options.hidden_layers.empty()) {
    // The k-th of n layers ends the same share of the network as layer k * m / n of m, rounded up: the last meets the
    // last.
    for (int64_t k = 1; k <= student_layers; ++k) {
      map[static_cast<int>(k - 1)] = static_cast<int>((k * teacher_layers + student_layers - 1) / student_layers - 1);
    }
  }
  return {map.begin(), map.end()};
}

}  // namespace crumb::distill
