// A LibTorch program that swaps the linears of its own model for 2-bit SEQ linears and trains them (docs/library.md).
#include <torch/torch.h>

#include <cstdio>

#include "qat/seq_linear.h"

int main() {
  torch::manual_seed(0);
  torch::nn::Sequential net(torch::nn::Linear(32, 128), torch::nn::SiLU(), torch::nn::Linear(128, 128),
                            torch::nn::SiLU(), torch::nn::Linear(128, 4));
  const auto x = torch::randn({512, 32});
  const auto target = net->forward(x).detach();  // the float network is the teacher of its 2-bit copy

  // One scale for 32 weights, started at the least squared error; the last layer ("4") stays in float.
  const crumb::qat::SeqOptions options{.group_size = 32};
  auto quantized = crumb::qat::with_seq_linears(net, options, /*exclude=*/{"4"});

  const auto loss = [&] { return torch::mse_loss(quantized->forward(x), target) / target.square().mean(); };
  const double rounded = loss().item<double>();
  torch::optim::AdamW optimizer(quantized->parameters(), torch::optim::AdamWOptions(3e-3).weight_decay(0));
  for (int step = 0; step < 150; ++step) {
    optimizer.zero_grad();
    loss().backward();
    optimizer.step();
  }
  std::printf("rounded: loss %.4f, trained: loss %.4f\n", rounded, loss().item<double>());
  const auto layer = quantized->ptr(0)->as<crumb::qat::SeqLinearImpl>()->quantized();
  std::printf("layer 0: %zu codes in 0..3, %zu scales\n", layer.codes.size(), layer.scales.size());
}
