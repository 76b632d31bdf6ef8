#include "eval/damage_report.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/common/chart.h"
#include "core/common/html.h"
#include "core/common/json.h"
#include "core/common/quantity.h"
#include "eval/estimate_json.h"

namespace crumb::eval {
namespace {

using Json = nlohmann::ordered_json;
using Table = std::vector<std::vector<std::string>>;

std::string estimate_text(const Estimate& e) {
  return e.standard_error ? fmt::format("{:.4g} ± {:.2g}", e.value, *e.standard_error) : fmt::format("{:.4g}", e.value);
}

/// An infinite one, of outputs without error, is no number of JSON.
Json finite_or_null(double value) { return std::isfinite(value) ? Json(value) : Json(); }

double cost(const LinearDamage& linear) { return linear.kl ? linear.kl->value : linear.output_error; }

/// "23 / 27 / 27 / 23" for a few levels; of many the least and the most of them.
std::string shares_text(const std::vector<double>& shares) {
  if (shares.empty()) return "-";
  if (shares.size() > 4) {
    const auto [least, most] = std::ranges::minmax(shares);
    return fmt::format("{:.1f} to {:.1f}", 100 * least, 100 * most);
  }
  std::string out;
  for (const double share : shares) out += fmt::format("{}{:.0f}", out.empty() ? "" : " / ", 100 * share);
  return out;
}

std::string strips(const DamageMap& damage, const std::string& title,
                   const std::function<std::optional<double>(const LinearDamage&)>& value) {
  HeatChart chart{title, {}, {}, {}};
  int layers = 0;
  for (const auto& linear : damage.linears) {
    layers = std::max(layers, linear.layer + 1);
    if (std::ranges::count(chart.rows, linear.kind()) == 0) chart.rows.push_back(linear.kind());
  }
  for (int layer = 0; layer < layers; ++layer) chart.columns.push_back(fmt::format("{}", layer));
  chart.values.assign(chart.rows.size(), std::vector<std::optional<double>>(chart.columns.size()));
  for (const auto& linear : damage.linears) {
    const auto row = static_cast<size_t>(std::ranges::find(chart.rows, linear.kind()) - chart.rows.begin());
    if (linear.layer >= 0) chart.values[row][static_cast<size_t>(linear.layer)] = value(linear);
  }
  return heat_chart(chart);
}

}  // namespace

Table damage_table(const DamageMap& damage, size_t most) {
  const bool has_kl = damage.linears.front().kl.has_value();
  Table rows{{"linear", "type", "weight error", "output SQNR, dB", "of a token, dB", "share %", "levels %",
              "entropy, bits", "scales: median", "least", "largest", "largest input"}};
  if (has_kl) rows[0].emplace_back("KL alone, nats/token");
  std::vector<const LinearDamage*> order;
  for (const auto& linear : damage.linears) order.push_back(&linear);
  if (most > 0) {
    std::ranges::stable_sort(order, [](const auto* a, const auto* b) { return cost(*a) > cost(*b); });
    if (order.size() > most) order.resize(most);
  }
  const auto of_codes = [](const LinearDamage& l, double value) {
    return l.code_shares.empty() ? std::string("-") : fmt::format("{:.3g}", value);
  };
  for (const auto* linear : order) {
    const auto& l = *linear;
    auto& cells = rows.emplace_back(std::vector<std::string>{
        l.module, l.dtype, fmt::format("{:.3g}", l.weight_error), fmt::format("{:.2f}", l.sqnr_db()),
        fmt::format("{:.2f}", -10 * std::log10(l.token_error)), fmt::format("{:.2f}", 100 * l.share),
        shares_text(l.code_shares), of_codes(l, l.entropy), of_codes(l, l.median_scale), of_codes(l, l.least_scale),
        of_codes(l, l.largest_scale), fmt::format("{:.4g}", l.largest_input)});
    if (has_kl) cells.push_back(estimate_text(*l.kl));
  }
  return rows;
}

Table layer_table(const DamageMap& damage) {
  Table rows{{"layer quantized alone", "KL, nats/token"}};
  for (const auto& layer : damage.layers) rows.push_back({fmt::format("{}", layer.layer), estimate_text(layer.kl)});
  return rows;
}

Table massive_table(const DamageMap& damage) {
  Table rows{{"made by", "token", "tokens", "value", "times the usual", "channel", "seen", "at token"}};
  for (const auto& m : damage.massive) {
    rows.push_back({m.module, dump_json(Json(m.token)), format_count(m.tokens), fmt::format("{:.5g}", m.value),
                    fmt::format("{:.4g}", m.times), format_count(m.channel), format_count(m.seen),
                    format_count(m.index)});
  }
  return rows;
}

std::string damage_note(const DamageMap& damage) {
  return fmt::format(
      "on the baseline's inputs, {} tokens of {} windows; weight error and SQNR: squared error over squares; of a "
      "token: "
      "each token with the same weight; share: of the damage, if it were as the output errors",
      format_count(damage.tokens), format_count(damage.windows));
}

Json damage_json(const DamageMap& damage) {
  Json json{{"windows", damage.windows}, {"tokens", damage.tokens}, {"linears", Json::array()}};
  for (const auto& l : damage.linears) {
    Json entry{{"module", l.module},
               {"layer", l.layer},
               {"type", l.dtype},
               {"bits_per_weight", l.bits},
               {"weight_error", l.weight_error},
               {"output_error", l.output_error},
               {"output_sqnr_db", finite_or_null(l.sqnr_db())},
               {"token_error", l.token_error},
               {"share", l.share},
               {"largest_input", l.largest_input}};
    if (!l.code_shares.empty()) {
      entry["level_shares"] = l.code_shares;
      entry["entropy_bits"] = l.entropy;
      entry["scales"] = {{"least", l.least_scale}, {"median", l.median_scale}, {"largest", l.largest_scale}};
    }
    if (l.kl) entry["kl"] = estimate_json(*l.kl);
    json["linears"].push_back(std::move(entry));
  }
  for (const auto& layer : damage.layers)
    json["layers"].push_back({{"layer", layer.layer}, {"kl", estimate_json(layer.kl)}});
  json["massive"] = Json::array();
  for (const auto& m : damage.massive)
    json["massive"].push_back({{"module", m.module},
                               {"tokens", m.tokens},
                               {"value", m.value},
                               {"times", m.times},
                               {"channel", m.channel},
                               {"token", m.token},
                               {"tokens_seen", m.seen},
                               {"token_index", m.index}});
  json["outstanding"] = damage.outstanding;
  json["overrides"] = damage.overrides;
  return json;
}

std::string damage_html(const DamageMap& damage) {
  std::string out = strips(damage, "KL with one linear quantized alone, nats a token",
                           [](const LinearDamage& l) { return l.kl ? std::optional(l.kl->value) : std::nullopt; });
  out += strips(damage, "Error of outputs, relative", [](const LinearDamage& l) { return l.output_error; });
  out += strips(damage, "Error of weights, relative", [](const LinearDamage& l) { return l.weight_error; });
  out += strips(damage, "Largest input", [](const LinearDamage& l) { return l.largest_input; });
  Curve layers{"one layer quantized", "#b63b3b", {}};
  for (const auto& layer : damage.layers) layers.points.emplace_back(layer.layer, layer.kl.value);
  out += line_chart("KL with one layer quantized alone, nats a token", {layers},
                    {.x_title = "layer", .y = Scale::automatic});
  if (!damage.massive.empty())
    out +=
        "<h3>Massive activations</h3>\n" + html_table(massive_table(damage), 2) +
        fmt::format(
            "<p class='note'>Entries that a linear adds to the residual stream, more than {0} and than {0} times the "
            "median of its RMS over tokens; of each linear the largest.</p>\n",
            kMassive);
  for (const auto& line : damage.outstanding) out += "<p>" + html_escaped(line) + "</p>\n";
  if (!damage.overrides.empty()) {
    out += "<h3>Worth more bits</h3>\n<pre>";
    for (size_t at = 0; at < damage.overrides.size();) {
      const size_t end = damage.overrides.find('\n', at);
      out += html_escaped(std::string_view(damage.overrides).substr(at, end - at)) + "\n";
      at = end + 1;
    }
    out += "</pre>\n";
  }
  if (!damage.layers.empty()) out += html_table(layer_table(damage));
  return out + "<details><summary>every linear</summary>" + html_table(damage_table(damage)) +
         "</details>\n<p class='note'>" + html_escaped(damage_note(damage)) + ".</p>\n";
}

}  // namespace crumb::eval
