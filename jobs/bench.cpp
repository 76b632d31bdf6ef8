#include "jobs/bench.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <set>
#include <span>
#include <utility>

#include "core/common/error.h"
#include "core/common/log.h"
#include "core/common/machine.h"
#include "core/common/progress.h"
#include "core/common/resident.h"
#include "core/common/rng.h"
#include "core/common/thread_pool.h"
#include "jobs/running_model.h"
#include "kernels/cpu_features.h"
#include "kernels/read_probe.h"
#include "runtime/cuda/decoder.h"
#include "runtime/held_codes.h"
#include "runtime/session.h"

namespace crumb::jobs {
namespace {

using runtime::Activations;
using tokenizer::TokenId;

/// Threads that are others from one measurement to the next; a model is loaded once for all of them.
class ChangingThreads : public Executor {
 public:
  void use(int64_t threads) {
    pool_.reset();  // none of the old threads runs beside the new ones
    pool_ = std::make_unique<ThreadPool>(static_cast<int>(threads));
  }
  int num_threads() const override { return pool_->num_threads(); }
  void run(int64_t n, int64_t grain, const Body& body) override { pool_->run(n, grain, body); }

 private:
  std::unique_ptr<ThreadPool> pool_;
};

/// Tokens of texts alone, none that ends or begins one: a fixed sequence of random ones.
std::vector<TokenId> random_tokens(const RunningModel& model, int64_t count) {
  const auto ends = document_ends(model);
  const std::set<TokenId> excluded(ends.begin(), ends.end());
  const int64_t vocabulary = std::min(model.tokenizer->vocab_size(), model.decoder->spec().vocab_size);
  std::vector<TokenId> usual;
  for (int64_t id = 0; id < vocabulary; ++id) {
    const auto token = static_cast<TokenId>(id);
    if (!model.tokenizer->is_special(token) && !excluded.contains(token)) usual.push_back(token);
  }
  CRUMB_CHECK(!usual.empty(), "{}: its tokenizer has no token but special ones", model.checkpoint->path().string());
  std::vector<TokenId> tokens;
  const Rng rng(0, hash_name("bench"));
  for (int64_t i = 0; i < count; ++i) tokens.push_back(usual[rng.below(static_cast<uint64_t>(i), usual.size())]);
  return tokens;
}

/// What a generation took from its first new token to its last.
struct Decoding {
  double seconds = 0;
  runtime::PassSeconds within;
};

/// A model in memory, and the row its measurements go to.
class Candidate {
 public:
  Candidate(const NamedModel& model, const runtime::Precision& precision, std::shared_ptr<Executor> executor,
            int64_t most_tokens)
      : named_(model) {
    const int64_t before = resident_bytes();
    model_ = load_model(model.path, precision, Loading{std::move(executor)});
    options_ = sampling_options({}, model_, 0.0);
    tokens_ = random_tokens(model_, most_tokens);
    first_token(std::min<int64_t>(most_tokens, 8));  // memory that only a pass needs
    resident_ = std::max<int64_t>(0, resident_bytes() - before);
  }

  BenchRow new_row(int64_t threads) const {
    BenchRow row{named_, model_.precision.activations, threads};
    const auto weights = model_.decoder->weight_bytes();
    row.add(measure::kWeightsHeld, {}, static_cast<double>(weights.held));
    row.add(measure::kWeightsRead, {}, static_cast<double>(weights.read));
    row.add(measure::kResident, {}, static_cast<double>(resident_));
    row.add(measure::kLoad, {}, model_.load_seconds);
    return row;
  }

  /// Seconds until the first new token of a text that was not seen before.
  double first_token(int64_t prompt) {
    const Stopwatch watch;
    runtime::Session session(*model_.decoder);
    session.go_on({beginning(prompt), 1, {}, 0}, options_, nullptr);
    return watch.seconds();
  }

  /// Contexts that grow in a round go on from one another.
  void start_round() { session_ = std::make_unique<runtime::Session>(*model_.decoder); }
  /// `count` passes of one token behind `context` tokens, or one, as a text has to begin with something.
  Decoding decode(int64_t context, int64_t count) {
    Decoding decoding;
    Stopwatch watch;
    int64_t known = 0;
    session_->go_on({beginning(std::max<int64_t>(1, context)), count + 1, {}, 0}, options_, [&](TokenId) {
      const auto [linears, attention] = model_.decoder->seconds();
      auto& within = decoding.within;
      if (known++ == 0) {
        watch = Stopwatch();
        within = {linears, attention};
      } else if (known == count + 1) {
        decoding = {watch.seconds(), {linears - within.linears, attention - within.attention}};
      }
      return true;
    });
    return decoding;
  }
  int64_t state_bytes() const { return session_->state().bytes(); }
  int64_t weights_read() const { return model_.decoder->weight_bytes().read; }
  void end_round() { session_.reset(); }

 private:
  std::vector<TokenId> beginning(int64_t count) const { return {tokens_.begin(), tokens_.begin() + count}; }

  NamedModel named_;
  RunningModel model_;
  runtime::SamplingOptions options_;
  std::vector<TokenId> tokens_;
  std::unique_ptr<runtime::Session> session_;
  int64_t resident_ = 0;
};

void check_list(const char* option, const std::vector<int64_t>& values, int64_t least) {
  CRUMB_CHECK(!values.empty(), "{}: give one number or several", option);
  for (const int64_t value : values) {
    CRUMB_CHECK(value >= least, "{}: {} is out of range, expected at least {}", option, value, least);
    CRUMB_CHECK(std::ranges::count(values, value) == 1, "{}: {} is given twice", option, value);
  }
}

/// What can be known to be wrong without a model.
void check_job(const BenchJob& job) {
  CRUMB_CHECK(!job.models.empty(), "bench: give a model");
  require_names_apart(job.models);
  CRUMB_CHECK(job.rounds >= 1, "--rounds: {} is out of range, expected at least 1", job.rounds);
  CRUMB_CHECK(job.new_tokens >= 1, "--new: {} is out of range, expected at least 1", job.new_tokens);
  if (job.prompts) check_list("--prompt", *job.prompts, 1);
  if (job.contexts) check_list("--context", *job.contexts, 0);
  check_list("--threads", job.threads, 1);
  CRUMB_ASSERT(!job.activations.empty());
}

/// What is known of a model before it is loaded.
struct Known {
  int64_t context_length = 0;
  bool is_quantized = false;
  Activations automatic = Activations::floats;  // what that is for it
};

Known know(const NamedModel& model, runtime::Device device) {
  const auto checkpoint = quant::open_checkpoint(model.path);
  return {checkpoint->spec().context_length, runtime::has_quantized_linears(*checkpoint),
          runtime::resolved(runtime::Precision{Activations::automatic, {}, device}, *checkpoint).activations};
}

void check_lengths(const BenchJob& job, const NamedModel& model, const Known& known) {
  for (const int64_t prompt : job.prompts.value_or(std::vector<int64_t>()))
    CRUMB_CHECK(prompt < known.context_length, "--prompt: {} tokens and a new one, {} holds {}", prompt,
                model.path.string(), known.context_length);
  for (const int64_t context : job.contexts.value_or(std::vector<int64_t>()))
    CRUMB_CHECK(std::max<int64_t>(1, context) + job.new_tokens <= known.context_length,
                "--context: {} tokens and {} new ones, {} holds {}", context, job.new_tokens, model.path.string(),
                known.context_length);
}

/// The lengths that were asked for, which check_lengths has seen, or the usual ones that leave room for `more` tokens.
std::vector<int64_t> lengths_of(const char* what, const std::optional<std::vector<int64_t>>& asked,
                                std::span<const int64_t> usual, int64_t more, int64_t shortest_context) {
  if (asked) return *asked;
  std::vector<int64_t> taken, left;
  for (const int64_t length : usual)
    (std::max<int64_t>(1, length) + more <= shortest_context ? taken : left).push_back(length);
  if (!left.empty())
    log_warning("{} of {} tokens are left out: a model holds only {}", what, fmt::join(left, ", "), shortest_context);
  return taken;
}

/// With the threads that 0 stands for.
BenchJob resolved(BenchJob job) {
  for (int64_t& threads : job.threads) {
    if (threads == 0) threads = available_processors();
  }
  return job;
}

class Bench {
 public:
  explicit Bench(const BenchJob& given) : job_(resolved(given)) {
    const auto& job = job_;
    check_job(job);
    std::vector<Known> known;
    for (const auto& model : job.models) {
      known.push_back(know(model, job.device));
      check_lengths(job, model, known.back());
    }
    const auto shortest = std::ranges::min_element(known, {}, &Known::context_length);
    result_.prompts = lengths_of("prompts", job.prompts, kBenchPrompts, 1, shortest->context_length);
    result_.contexts = lengths_of("contexts", job.contexts, kBenchContexts, job.new_tokens, shortest->context_length);
    CRUMB_CHECK(!result_.contexts.empty(), "--new: {} tokens, a model holds only {}", job.new_tokens,
                shortest->context_length);
    std::ranges::sort(result_.contexts);
    load(known);
  }

  BenchResult run() {
    Progress progress("bench", job_.rounds * static_cast<int64_t>(job_.threads.size() * candidates_.size()), "rows");
    for (int64_t round = 0; round < job_.rounds; ++round) {
      for (size_t i = 0; i < job_.threads.size(); ++i) {
        run_round(round, i);
        progress.add(static_cast<int64_t>(candidates_.size()));
      }
    }
    progress.finish();
    result_.processor = processor_name();
    result_.isa = kernels::isa_name(kernels::best_isa());
    result_.processors = available_processors();
    result_.cache_type = job_.cache_type;
    result_.rounds = job_.rounds;
    result_.new_tokens = job_.new_tokens;
    result_.peak_resident_bytes =
        std::max<int64_t>(0, peak_resident_bytes() - (probe_ == nullptr ? 0 : probe_->bytes()));
    return std::move(result_);
  }

 private:
  void load(const std::vector<Known>& known) {
    threads_->use(std::ranges::max(job_.threads));  // codes are put in order by as many as there are
    const int64_t most_tokens = std::max(
        {int64_t{1}, result_.contexts.back(), result_.prompts.empty() ? 1 : std::ranges::max(result_.prompts)});
    for (size_t i = 0; i < job_.models.size(); ++i) {
      const auto& model = job_.models[i];
      for (const Activations activations : activations_of(model, known[i]))
        candidates_.push_back(std::make_unique<Candidate>(
            model, runtime::Precision{activations, job_.cache_type, job_.device}, threads_, most_tokens));
    }
    if (job_.device == runtime::Device::cpu)
      probe_ = std::make_unique<kernels::ReadProbe>(kernels::bytes_beyond_caches());
    else
      result_.gpu = runtime::cuda_device_name();
    for (const int64_t threads : job_.threads) {
      if (probe_ != nullptr) result_.probes.push_back({threads});
      for (const auto& candidate : candidates_) result_.rows.push_back(candidate->new_row(threads));
    }
  }

  /// Those asked for, each once.
  std::vector<Activations> activations_of(const NamedModel& model, const Known& known) const {
    std::vector<Activations> result;
    for (const Activations asked : job_.activations) {
      Activations activations = asked == Activations::automatic ? known.automatic : asked;
      if (activations == Activations::int8 && !known.is_quantized) {
        log_warning("{} has no quantized linears: measured with float activations alone", model.path.string());
        activations = Activations::floats;
      }
      if (std::ranges::find(result, activations) == result.end()) result.push_back(activations);
    }
    return result;
  }

  /// Each measurement of all models side by side; another one begins in each round.
  void run_round(int64_t round, size_t threads_index) {
    threads_->use(job_.threads[threads_index]);
    BenchRow* const rows = result_.rows.data() + threads_index * candidates_.size();
    const auto for_all = [&](const auto& body) {
      for (size_t i = 0; i < candidates_.size(); ++i) {
        const size_t turn = (i + static_cast<size_t>(round)) % candidates_.size();
        body(*candidates_[turn], rows[turn]);
      }
    };
    for (const int64_t prompt : result_.prompts)
      for_all([&](auto& model, auto& row) { row.add(measure::kFirstToken, prompt, model.first_token(prompt)); });
    for_all([](auto& model, auto&) { model.start_round(); });
    for (const int64_t context : result_.contexts) {
      const double read = probe_ == nullptr ? 0 : probe_->measure(*threads_);
      if (probe_ != nullptr) result_.probes[threads_index].bytes_per_second.push_back(read);
      for_all([&](auto& model, auto& row) { add_decoding(model, row, context, read); });
    }
    for_all([](auto& model, auto&) { model.end_round(); });
  }

  void add_decoding(Candidate& model, BenchRow& row, int64_t context, double read) const {
    const auto decoding = model.decode(context, job_.new_tokens);
    const double rate = rate_of(job_.new_tokens, decoding.seconds);
    const double weight_rate = rate * static_cast<double>(model.weights_read());
    row.add(measure::kTokenRate, context, rate);
    row.add(measure::kWeightRate, context, weight_rate);
    row.add(measure::kStateBytes, context, static_cast<double>(model.state_bytes()));
    if (probe_ == nullptr) return;
    row.add(measure::kReadShare, context, weight_rate / read);
    const double seconds = std::max(decoding.seconds, 1e-9), attention = decoding.within.attention / seconds;
    row.add(measure::kInAttention, context, attention);
    row.add(measure::kElsewhere, context, 1 - decoding.within.linears / seconds - attention);
  }

  const BenchJob job_;
  std::shared_ptr<ChangingThreads> threads_ = std::make_shared<ChangingThreads>();
  std::vector<std::unique_ptr<Candidate>> candidates_;
  std::unique_ptr<kernels::ReadProbe> probe_;  // none where a GPU computes
  BenchResult result_;
};

}  // namespace

const BenchMeasure* BenchRow::find(std::string_view name, std::optional<int64_t> tokens) const {
  const auto found = std::ranges::find_if(
      measures, [&](const auto& measure) { return measure.name == name && measure.tokens == tokens; });
  return found == measures.end() ? nullptr : &*found;
}

void BenchRow::add(std::string_view name, std::optional<int64_t> tokens, double sample) {
  const auto* found = find(name, tokens);
  if (found == nullptr) found = &measures.emplace_back(BenchMeasure{name, tokens, {}});
  measures[static_cast<size_t>(found - measures.data())].samples.push_back(sample);
}

const BenchRow& BenchResult::reference_of(const BenchRow& row) const {
  return *std::ranges::find_if(rows, [&](const auto& other) { return other.threads == row.threads; });
}

std::optional<double> BenchResult::ratio(const BenchRow& row, const BenchMeasure& of) const {
  const auto& reference = reference_of(row);
  const auto* other = &reference == &row ? nullptr : reference.find(of.name, of.tokens);
  if (other == nullptr) return std::nullopt;
  const double median = spread_of(other->samples).median;
  return median > 0 ? std::optional(spread_of(of.samples).median / median) : std::nullopt;
}

BenchResult bench(const BenchJob& job) { return Bench(job).run(); }

}  // namespace crumb::jobs
