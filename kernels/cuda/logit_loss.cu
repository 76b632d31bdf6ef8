// A block takes a row of logits. It reads both rows for their normalisers, once more for the terms whose gradient needs
// their value, and once for the gradient: rows of a common vocabulary are in the L2 cache by then.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/training.h"

namespace crumb::kernels {
namespace {

using namespace device;

constexpr int kThreads = 512;

struct Spec {
  float kl, reverse_kl, jsd, cakld, cross_entropy;
  float temperature, beta, log_beta, log_rest;  // ln beta, ln (1 - beta)
  bool has_divergence, needs_values;            // values: of terms in their own gradients
};

/// What turns a logit times the factor into a logarithm of a probability. Two numbers: their sum would be rounded at
/// the size of the logits.
struct Normaliser {
  float peak, log_sum;
  __device__ __forceinline__ float operator()(float x) const { return (x - peak) - log_sum; }
};

/// ln sum e^(x * factor), in every thread. Sums beyond a thread in double.
__device__ __forceinline__ Normaliser normaliser(const float* x, int64_t n, float factor, double* shared,
                                                 float* maxima) {
  float top = -INFINITY, sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) {
    const float value = x[i] * factor;
    if (value > top) {
      sum = sum * expf(top - value) + 1.0f;
      top = value;
    } else if (value != -INFINITY) {  // NaN comes here, and stays
      sum += expf(value - top);
    }
  }
  float largest = top;
  for (int step = kWarp / 2; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, step));
  if (threadIdx.x % kWarp == 0) maxima[threadIdx.x / kWarp] = largest;
  __syncthreads();
  for (int i = 0; i < kThreads / kWarp; ++i) largest = fmaxf(largest, maxima[i]);
  const double total =
      block_sum(static_cast<double>(top == -INFINITY && sum == 0 ? 0.0f : sum * expf(top - largest)), shared);
  return {largest, logf(static_cast<float>(total))};
}

/// x, 0 where its probability is 0 whatever x is.
__device__ float weighted(float probability, float x) { return probability == 0 ? 0.0f : probability * x; }

__device__ float log_mean(const Spec& spec, float log_p, float log_q) {
  const float a = log_p + spec.log_beta, b = log_q + spec.log_rest, top = fmaxf(a, b);
  return top == -INFINITY ? top : top + log1pf(expf(fminf(a, b) - top));
}

__global__ void __launch_bounds__(kThreads, 2)
    logit_loss_kernel(float* student, const float* teacher, const int64_t* targets, const float* row_weights,
                      int64_t vocab, Spec spec, double* terms) {
  __shared__ double shared[kThreads / kWarp];
  __shared__ float maxima[kThreads / kWarp];
  float* z = student + static_cast<int64_t>(blockIdx.x) * vocab;
  double* out = terms + static_cast<int64_t>(blockIdx.x) * kNumLossTerms;
  const float weight = row_weights[blockIdx.x];
  if (weight == 0) {
    for (int64_t i = threadIdx.x; i < vocab; i += kThreads) z[i] = 0;
    if (threadIdx.x < kNumLossTerms) out[threadIdx.x] = 0;
    return;
  }
  const int64_t target = targets[blockIdx.x];
  const float* t = teacher == nullptr ? nullptr : teacher + static_cast<int64_t>(blockIdx.x) * vocab;
  const float cool = 1.0f / spec.temperature;
  Normaliser of_q{0, 0}, of_p{0, 0}, of_z{0, 0};
  float confidence = 0, cross_entropy = 0;
  if (spec.has_divergence) {
    of_q = normaliser(z, vocab, cool, shared, maxima);
    of_p = normaliser(t, vocab, cool, shared, maxima);
    confidence = expf(of_p(t[target] * cool));
  }
  if (spec.cross_entropy != 0) {
    of_z = spec.has_divergence && spec.temperature == 1.0f ? of_q : normaliser(z, vocab, 1.0f, shared, maxima);
    cross_entropy = -of_z(z[target]);
  }
  __syncthreads();  // z[target] is read before it becomes a gradient

  double forward = 0, reverse = 0, to_teacher = 0, to_student = 0;
  if (spec.needs_values) {
    float reverse_part = 0, student_part = 0;
    for (int64_t i = threadIdx.x; i < vocab; i += kThreads) {
      const float log_q = of_q(z[i] * cool), log_p = of_p(t[i] * cool), q = expf(log_q);
      reverse_part += q * (log_q - log_p);
      if (spec.jsd != 0) student_part += weighted(q, log_q - log_mean(spec, log_p, log_q));
    }
    reverse = block_sum(static_cast<double>(reverse_part), shared);
    to_student = block_sum(static_cast<double>(student_part), shared);
  }
  const float by_kl = (spec.kl + spec.cakld * (1.0f - confidence)) * spec.temperature,
              by_reverse = (spec.reverse_kl + spec.cakld * confidence) * spec.temperature,
              by_jsd = spec.jsd * (1.0f - spec.beta) * spec.temperature;
  float forward_part = 0, teacher_part = 0;
  for (int64_t i = threadIdx.x; i < vocab; i += kThreads) {
    const float logit = z[i];
    float gradient = 0;
    if (spec.has_divergence) {
      const float log_q = of_q(logit * cool), log_p = of_p(t[i] * cool), q = expf(log_q), p = expf(log_p);
      if (spec.kl != 0 || spec.cakld != 0) {
        forward_part += p * (log_p - log_q);
        gradient += (q - p) * by_kl;
      }
      if (spec.reverse_kl != 0 || spec.cakld != 0)
        gradient += q * (log_q - log_p - static_cast<float>(reverse)) * by_reverse;
      if (spec.jsd != 0) {
        const float log_m = log_mean(spec, log_p, log_q);
        teacher_part += weighted(p, log_p - log_m);
        gradient += weighted(q, log_q - log_m - static_cast<float>(to_student)) * by_jsd;
      }
    }
    if (spec.cross_entropy != 0) gradient += (expf(of_z(logit)) - (i == target ? 1.0f : 0.0f)) * spec.cross_entropy;
    z[i] = gradient * weight;
  }
  forward = block_sum(static_cast<double>(forward_part), shared);
  to_teacher = block_sum(static_cast<double>(teacher_part), shared);
  if (threadIdx.x != 0) return;
  const double square = static_cast<double>(spec.temperature) * spec.temperature, sure = confidence;
  out[0] = spec.kl != 0 ? forward * square : 0;
  out[1] = spec.reverse_kl != 0 ? reverse * square : 0;
  out[2] = spec.jsd != 0 ? (spec.beta * to_teacher + (1.0 - spec.beta) * to_student) * square : 0;
  out[3] = spec.cakld != 0 ? (reverse * sure + forward * (1.0 - sure)) * square : 0;
  out[4] = cross_entropy;
}

}  // namespace

void logit_loss(float* student, const float* teacher, const int64_t* targets, const float* row_weights, int64_t rows,
                int64_t vocab, const LogitLossSpec& spec, LossTerms* terms, CudaStream stream) {
  static_assert(sizeof(LossTerms) == kNumLossTerms * sizeof(double), "a row of the terms is a LossTerms");
  if (rows == 0) return;
  const auto& [w, temperature, beta] = spec;
  const Spec plain{.kl = static_cast<float>(w.kl),
                   .reverse_kl = static_cast<float>(w.reverse_kl),
                   .jsd = static_cast<float>(w.jsd),
                   .cakld = static_cast<float>(w.cakld),
                   .cross_entropy = static_cast<float>(w.cross_entropy),
                   .temperature = static_cast<float>(temperature),
                   .beta = static_cast<float>(beta),
                   .log_beta = static_cast<float>(std::log(beta)),
                   .log_rest = static_cast<float>(std::log1p(-beta)),
                   .has_divergence = needs_teacher(w),
                   .needs_values = w.reverse_kl != 0 || w.jsd != 0 || w.cakld != 0};
  logit_loss_kernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(student, teacher, targets, row_weights, vocab,
                                                                          plain, reinterpret_cast<double*>(terms));
  check_launch("logit_loss");
}

}  // namespace crumb::kernels
