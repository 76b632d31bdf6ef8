// The tables and lines of an evaluation, as text: what every form of report has in common.
#pragma once

#include <string>
#include <vector>

#include "eval/evaluate.h"

namespace crumb::eval {

/// Rows of cells, the first of them the header.
using Table = std::vector<std::vector<std::string>>;
using Results = std::vector<EvalResult>;

/// Of models with a KL: those that no other is at least as small and as near to the baseline as, and better in one of
/// them. All false where there is no KL.
std::vector<bool> on_pareto_front(const Results& results);

std::string facts_text(const ModelFacts& facts);
/// What the documents and the windows of a protocol are.
std::string documents_text(const Protocol& protocol);
std::string windows_text(const Protocol& protocol);
/// What errors take as independent: "windows".
std::string clusters(const Protocol& protocol);
/// What stands below a table of texts: how to read its errors.
std::string errors_text(const Protocol& protocol);
/// A row a text of one model, or a row a model of several.
Table text_table(const Results& results);
/// What the changes of a model are worth: a verdict, and intervals where they were estimated; "" where no error is
/// known or without a baseline.
std::string verdict_text(const EvalResult& result);
/// verdict_text() and each limit of each model.
std::vector<std::string> check_lines(const Results& results);
std::string check_text(const DropCheck& check);
/// KL by text and by position; the worst tokens in their contexts. With a baseline.
Table divergence_table(const EvalResult& result);
Table worst_table(const EvalResult& result);
Table task_table(const Results& results);
std::vector<std::string> notes_of_tasks(const Results& results);

inline constexpr const char* kDivergence = "KL divergence by text and by tokens of context";
inline constexpr const char* kDivergenceColumns =
    "median to largest: percentiles of the KL of single tokens; Δp: P(right token) less that of the baseline; shared "
    "top-5: of the baseline's five first choices those among the model's five";
inline constexpr const char* kWorst = "Where the model is farthest from the baseline";

}  // namespace crumb::eval
