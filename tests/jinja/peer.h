// Templates rendered here and by Python's jinja2.
#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "core/jinja/template.h"
#include "tests/testing/testing.h"

namespace crumb::testing {

inline constexpr std::time_t kPeerClock = 1'700'000'000;

struct TemplateCase {
  std::string source;
  nlohmann::ordered_json variables;
};

/// {"text": ...} or {"error": ...} for each.
inline std::vector<nlohmann::json> ask_jinja(const fs::path& python, const std::vector<TemplateCase>& cases) {
  const TempDir dir;
  auto items = nlohmann::ordered_json::array();
  for (const auto& one : cases) items.push_back({{"template", one.source}, {"variables", one.variables}});
  write_file(dir / "items.json", items.dump());
  const auto result = run_command(python.string() + " " + (source_dir() / "tests/jinja/jinja_peer.py").string() + " " +
                                  (dir / "items.json").string());
  EXPECT_EQ(result.exit_code, 0) << result.err;
  std::vector<nlohmann::json> answers;
  std::istringstream lines(result.out);
  for (std::string line; std::getline(lines, line);) answers.push_back(nlohmann::json::parse(line));
  return answers;
}

/// The same texts byte for byte, and errors where jinja2 has errors.
inline void expect_as_jinja(const fs::path& python, const std::vector<TemplateCase>& cases) {
  const auto answers = ask_jinja(python, cases);
  ASSERT_EQ(answers.size(), cases.size());
  for (size_t i = 0; i < cases.size(); ++i) {
    std::string ours;
    const std::string error =
        error_of([&] { ours = jinja::Template(cases[i].source, "t").render(cases[i].variables, kPeerClock); });
    const bool has_text = answers[i].contains("text");
    EXPECT_EQ(error.empty(), has_text) << cases[i].source << "\n"
                                       << cases[i].variables << "\nours: " << error << ours
                                       << "\njinja2: " << answers[i];
    if (!has_text) {
      EXPECT_TRUE(error.starts_with("t:")) << error;
    } else if (error.empty()) {
      EXPECT_EQ(ours, answers[i]["text"].get<std::string>()) << cases[i].source << "\n" << cases[i].variables;
    }
  }
}

}  // namespace crumb::testing
