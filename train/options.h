// The sections of a job that say how to train. Keys and defaults: docs/config.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/common/config.h"

namespace crumb::train {

/// One entry of `data.train`: a path, or {path, weight, format}. Entries without weights are joined and mixed by their
/// tokens.
struct TextSource {
  static constexpr const char* kShort = "path";

  Path path;
  std::optional<double> weight = std::nullopt;
  std::optional<std::string> format = std::nullopt;

  template <class V>
  void visit(V& v) {
    v.field("path", path, "the file", {.required = true});
    v.field("weight", weight, "share of the tokens; either every entry has one or none", {.min = 0});
    v.field("format", format, "what the file holds", {.choices = {"text"}});
  }
};

/// What is wrong with a mix; empty: nothing.
std::string mix_mistake(const std::vector<TextSource>& sources);

struct DataOptions {
  std::vector<TextSource> train = {};
  std::variant<double, Path> valid = 0.01;
  std::string separator = "\n\n\n";
  Auto<int64_t> sequence_length = {};
  std::vector<std::string> roles = {"assistant"};
  std::optional<bool> thinking = std::nullopt;
  bool isolate_documents = false;

  template <class V>
  void visit(V& v) {
    v.field(
        "train", train,
        "texts to train on: plain text cut at the separator, JSON with {\"text\": ...}, or conversations, JSON with "
        "{\"messages\": [{\"role\": ..., \"content\": ...}, ...]}, written by the model's chat template; a mix gives "
        "each its share "
        "of the tokens: "
        "[{path: a.jsonl, weight: 0.7}, {path: b.txt, weight: 0.3}]",
        {.required = true});
    v.check("train", mix_mistake(train));
    v.field("valid", valid,
            "text to validate on: a path, or a share of the training documents, at least one (of fewer than 100 "
            "documents: the tail of "
            "the tokens); it is never trained on",
            {.min = 0, .max = 0.5});
    v.field("separator", separator, "what stands between documents of a .txt; the model's EOS follows each document");
    v.field("sequence_length", sequence_length, "tokens a window; auto: 2048, or what the model declares if less",
            {.min = 2});
    v.field("roles", roles,
            "of conversations: whose turns are learned, with the token that ends each; all: every token of them");
    v.check("roles", roles.empty() ? "none given: nothing would be learned" : "");
    v.field("thinking", thinking,
            "of conversations: enable_thinking for the chat template; left out: what it does by itself");
    v.field("isolate_documents", isolate_documents,
            "documents and conversations that share a window do not see each other: attention stays inside each, "
            "positions begin anew, and none predicts the next; so in training and in validation");
  }

  /// Null: a share of the training documents.
  const Path* valid_path() const { return std::get_if<Path>(&valid); }
  double valid_share() const { return valid_path() != nullptr ? 0.0 : std::get<double>(valid); }
};

/// The section `train:`: what is trained.
struct TrainedParts {
  bool linears = true, norms = true, biases = true, embeddings = false, head = false;

  template <class V>
  void visit(V& v) {
    v.field("linears", linears, "the matrices inside the layers, and their scales");
    v.field("norms", norms, "weights of the norms");
    v.field("biases", biases, "biases of the linears");
    v.field("embeddings", embeddings, "the token embedding; a tied head with it");
    v.field("head", head, "a head of its own");
  }
};

struct OptimizerOptions {
  std::string name = "adamw";
  Auto<double> lr = {}, scale_lr = {};
  std::vector<double> betas = {0.9, 0.95};
  double eps = 1e-8;
  double weight_decay = 0.0;
  double grad_clip = 1.0;
  WordOr<double, "none"> gain_floor = {};
  double ema = 0.0;

  template <class V>
  void visit(V& v) {
    v.field("name", name,
            "what moves the matrices of the linears: adamw, or muon, whose steps are as large in every direction of a "
            "matrix; adamw moves everything else",
            {.choices = {"adamw", "muon"}});
    v.field("lr", lr,
            "learning rate. Quantized rows move in proportion to their scale, the median row by lr a step. "
            "auto: 0.6 % of the median "
            "scale, from a calibrated start 0.06 % at 512 tokens a step and more with the root of them, up to 0.2 %; "
            "without quantization 1e-3 * sqrt(512 / hidden size) from random values, a twentieth of it from a "
            "checkpoint",
            {.min = 0});
    v.field("scale_lr", scale_lr,
            "learning rate of the logarithms of the scales; auto: 0.001, from a calibrated start half of it",
            {.min = 0});
    v.field("betas", betas, "decay of the two moments; muon has the first alone", {.min = 0, .max = 0.9999999});
    v.field("eps", eps, "added to the root of the second moment", {.min = 0});
    v.field("weight_decay", weight_decay, "decoupled, on matrices only", {.min = 0});
    v.field("grad_clip", grad_clip, "largest norm of the gradient, scales left out; 0: no limit", {.min = 0});
    v.field("gain_floor", gain_floor,
            "a number: weights of norms take steps in proportion to their size, lr * max(|gain|, this), so that one "
            "that passes massive activations on by 0.0003 is not overrun by a step of 0.001; none: lr, whatever their "
            "size",
            {.min = 0, .max = 1});
    v.field(
        "ema", ema,
        "decay of an average of the weights over the steps, such as 0.99: it is validated, kept in OUTPUT/model and "
        "OUTPUT/last and exported in their place (init_from takes the weights themselves); 0: none",
        {.min = 0, .max = 0.9999999});
  }
};

struct ScheduleOptions {
  Auto<int64_t> tokens = {}, batch_tokens = {}, micro_batch = {};
  double warmup = 0.03;
  std::string decay = "cosine";
  double decay_share = 0.2;

  template <class V>
  void visit(V& v) {
    v.field("tokens", tokens, "tokens to train on; auto: one epoch, at most 10M", {.min = 1});
    v.field("batch_tokens", batch_tokens, "tokens a step; auto: for about 400 steps, from one window up to 64k tokens",
            {.min = 1});
    v.field("micro_batch", micro_batch,
            "windows computed at once; auto: up to 4k tokens on a CPU, on a GPU as many as its memory takes",
            {.min = 1});
    v.field("warmup", warmup, "share of the steps in which the learning rate rises", {.min = 0, .max = 1});
    v.field("decay", decay, "how it falls to zero: cosine, linear, or flat and then linear (wsd)",
            {.choices = {"cosine", "linear", "wsd"}});
    v.field("decay_share", decay_share, "wsd: share of the steps in which it falls", {.min = 0, .max = 1});
  }
};

struct ValidateOptions {
  int64_t every = 50;
  int64_t windows = 64;
  WordOr<int64_t, "none"> patience = {};

  template <class V>
  void visit(V& v) {
    v.field("every", every, "steps between validations; also before the first and after the last", {.min = 1});
    v.field("windows", windows, "windows to validate on, spread evenly", {.min = 1});
    v.field("patience", patience,
            "validations in a row without a better one after which the run ends; none: it goes on to the last step",
            {.min = 1});
  }
};

struct CheckpointOptions {
  int64_t every = 200;
  int64_t keep = 2;

  template <class V>
  void visit(V& v) {
    v.field("every", every, "steps between checkpoints; also after the last", {.min = 1});
    v.field("keep", keep, "checkpoints kept", {.min = 1});
  }
};

}  // namespace crumb::train
