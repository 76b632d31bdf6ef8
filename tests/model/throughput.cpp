// Tokens a second and memory of a training step without optimizer: forward and backward of the float decoder.
//   train_step_throughput MODEL [ce|kl] [steps] [windows] [tokens] [float32|bfloat16]
// Prints one JSON object; processor time is what to compare on a machine that others use too. throughput_peer.py does
// the same with transformers.
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <ctime>

#include "model/decoder.h"
#include "model/head_loss.h"

namespace {

struct Options {
  std::string model, loss = "kl", compute = "float32";
  int64_t steps = 10, windows = 8, tokens = 512;
};

Options parse(int argc, char** argv) {
  Options o;
  const auto text = [&](int i, const std::string& otherwise) { return argc > i ? std::string(argv[i]) : otherwise; };
  o.model = text(1, "");
  o.loss = text(2, o.loss);
  o.steps = std::stoll(text(3, "10"));
  o.windows = std::stoll(text(4, "8"));
  o.tokens = std::stoll(text(5, "512"));
  o.compute = text(6, o.compute);
  return o;
}

void step(const Options& o, crumb::model::Decoder& student, crumb::model::Decoder* teacher) {
  const torch::Tensor ids = torch::randint(student.spec().vocab_size, {o.windows, o.tokens + 1}, torch::kInt64);
  crumb::model::HeadLossInput in;
  const auto output = student.forward(ids.narrow(1, 0, o.tokens));
  in.hidden = output.final_hidden.flatten(0, 1);
  in.head = student.head_weight();
  in.compute = output.compute;
  in.targets = ids.narrow(1, 1, o.tokens).flatten();
  if (teacher != nullptr) {
    const torch::NoGradGuard no_grad;
    in.teacher_hidden = teacher->forward(ids.narrow(1, 0, o.tokens)).final_hidden.flatten(0, 1);
    in.teacher_head = teacher->head_weight();
  }
  const bool kl = teacher != nullptr;
  crumb::model::head_loss(in, {{.kl = kl ? 1.0 : 0.0, .cross_entropy = kl ? 0.0 : 1.0}},
                          static_cast<double>(o.windows * o.tokens))
      .total.backward();
  student.zero_grad();
}

}  // namespace

int main(int argc, char** argv) {
  const Options o = parse(argc, argv);
  const auto checkpoint = crumb::quant::open_checkpoint(o.model);
  const auto load = [&] {
    auto decoder =
        std::make_unique<crumb::model::Decoder>(checkpoint->spec(), crumb::model::checkpoint_source(*checkpoint));
    if (o.compute == "bfloat16") decoder->compute = torch::kBFloat16;
    return decoder;
  };
  const auto student = load(), teacher = o.loss == "kl" ? load() : nullptr;
  for (int i = 0; i < 2; ++i) step(o, *student, teacher.get());
  const auto start = std::chrono::steady_clock::now();
  const std::clock_t cpu_start = std::clock();
  for (int64_t i = 0; i < o.steps; ++i) step(o, *student, teacher.get());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double cpu_seconds = static_cast<double>(std::clock() - cpu_start) / CLOCKS_PER_SEC;
  const auto tokens = static_cast<double>(o.steps * o.windows * o.tokens);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::printf(
      "{\"loss\": \"%s\", \"compute\": \"%s\", \"threads\": %d, \"tokens_per_s\": %.0f, \"cpu_ms_per_token\": %.3f, "
      "\"peak_rss_mb\": %ld}\n",
      o.loss.c_str(), o.compute.c_str(), torch::get_num_threads(), tokens / seconds, 1e3 * cpu_seconds / tokens,
      usage.ru_maxrss / 1024);
}
