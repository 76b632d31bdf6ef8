// Every kernel as plain loops in double precision: the oracle of the other instruction sets, and the program's path
// under CRUMB_ISA=reference.
#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "kernels/code_matmul_portable.h"
#include "kernels/isa/table.h"

namespace crumb::kernels {
namespace {

double read(float x) { return x; }
double read(Bf16 x) { return widened(x); }
double read(Half x) { return from_f16(x.bits); }

void write(float* p, double x) { *p = static_cast<float>(x); }
void write(Bf16* p, double x) {
  const auto bits = std::bit_cast<uint32_t>(static_cast<float>(x));
  const uint32_t rounded = std::isnan(x) ? bits | 0x400000 : bits + 0x7FFF + ((bits >> 16) & 1);
  p->bits = static_cast<uint16_t>(rounded >> 16);
}

void write(Half* p, double x) { p->bits = to_f16(static_cast<float>(x)); }

template <class T>
double inverse_rms(const T* x, int64_t cols, float eps) {
  double squares = 0;
  for (int64_t i = 0; i < cols; ++i) squares += read(x[i]) * read(x[i]);
  return 1.0 / std::sqrt(squares / static_cast<double>(cols) + eps);
}

template <class In, class Out>
void rms_norm(const In* x, const float* weight, float eps, int64_t rows, int64_t cols, Out* y) {
  for (int64_t r = 0; r < rows; ++r) {
    const double inverse = inverse_rms(x + r * cols, cols, eps);
    for (int64_t i = r * cols; i < (r + 1) * cols; ++i) write(y + i, read(x[i]) * inverse * weight[i - r * cols]);
  }
}

template <class In, class Out>
void rms_norm_backward(const In* x, const float* weight, const Out* grad_y, float eps, int64_t rows, int64_t cols,
                       In* grad_x, float* grad_weight) {
  for (int64_t r = 0; r < rows; ++r, x += cols, grad_y += cols, grad_x += cols) {
    const double inverse = inverse_rms(x, cols, eps);
    double products = 0;
    for (int64_t i = 0; i < cols; ++i) products += read(x[i]) * read(grad_y[i]) * weight[i];
    const double pull = products / static_cast<double>(cols) * inverse * inverse;
    for (int64_t i = 0; i < cols; ++i) {
      const double v = read(x[i]), g = read(grad_y[i]);
      write(grad_x + i, (g * weight[i] - v * pull) * inverse);
      if (grad_weight != nullptr) grad_weight[i] = static_cast<float>(grad_weight[i] + g * v * inverse);
    }
  }
}

template <class T>
void rope(const T* x, const float* cos, const float* sin, int64_t half, bool inverse, T* y) {
  for (int64_t i = 0; i < half; ++i) {
    const double c = cos[i], s = inverse ? -sin[i] : sin[i], a = read(x[i]), b = read(x[i + half]);
    write(y + i, a * c - b * s);
    write(y + i + half, b * c + a * s);
  }
}

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

template <class T>
void swiglu(const T* gate, const T* up, int64_t n, T* y) {
  for (int64_t i = 0; i < n; ++i) write(y + i, read(gate[i]) * sigmoid(read(gate[i])) * read(up[i]));
}

template <class T>
void swiglu_backward(const T* gate, const T* up, const T* grad_y, int64_t n, T* grad_gate, T* grad_up) {
  for (int64_t i = 0; i < n; ++i) {
    const double g = read(gate[i]), u = read(up[i]), d = read(grad_y[i]), s = sigmoid(g);
    write(grad_up + i, d * g * s);
    write(grad_gate + i, d * u * s * (1.0 + g * (1.0 - s)));
  }
}

void logit_loss(float* student, float* teacher, int64_t target, float row_weight, int64_t vocab,
                const LogitLossSpec& spec, LossTerms* terms) {
  std::vector<double> gradient(student, student + vocab), other;
  if (teacher != nullptr) other.assign(teacher, teacher + vocab);
  const double weight = row_weight;
  reference::logit_loss(gradient.data(), other.data(), &target, &weight, 1, vocab, spec, terms);
  std::transform(gradient.begin(), gradient.end(), student, [](double g) { return static_cast<float>(g); });
}

/// log(sum exp(x - peak)); NaN where a logit is.
double log_sum(const float* x, int64_t n, double peak) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(x[i] - peak);
  return std::log(sum);
}

void logit_score(const float* student, const float* teacher, int64_t target, int64_t vocab, LogitScoreRow* score) {
  *score = {};
  score->student_top = std::max_element(student, student + vocab) - student;
  const double peak = student[score->student_top], log_q_sum = log_sum(student, vocab, peak);
  score->cross_entropy = log_q_sum - (student[target] - peak);
  if (teacher == nullptr) return;
  score->teacher_top = std::max_element(teacher, teacher + vocab) - teacher;
  const double teacher_peak = teacher[score->teacher_top], log_p_sum = log_sum(teacher, vocab, teacher_peak);
  score->teacher_cross_entropy = log_p_sum - (teacher[target] - teacher_peak);
  double weighted = 0;
  for (int64_t i = 0; i < vocab; ++i) {
    const double log_p = teacher[i] - teacher_peak;
    weighted += std::exp(log_p) * (log_p - (student[i] - peak));
  }
  score->kl = weighted / std::exp(log_p_sum) - log_p_sum + log_q_sum;
}

template <class W>
void matmul_rows_of(const MatmulArguments& a, const W* weights, int64_t begin, int64_t end) {
  for (int64_t t = 0; t < a.tokens; ++t) {
    const float* x = a.x + t * a.x_stride;
    for (int64_t r = begin; r < end; ++r) {
      const W* w = weights + r * a.cols;
      double sum = a.bias != nullptr ? a.bias[r] : 0.0;
      for (int64_t k = 0; k < a.cols; ++k) sum += static_cast<double>(x[k]) * read(w[k]);
      a.y[t * a.y_stride + r] = static_cast<float>(sum);
    }
  }
}

void matmul_rows(const MatmulArguments& a, int64_t begin, int64_t end, float* /*scratch*/) {
  if (a.w_bf16 != nullptr)
    matmul_rows_of(a, a.w_bf16, begin, end);
  else if (a.w_f16 != nullptr)
    matmul_rows_of(a, a.w_f16, begin, end);
  else
    matmul_rows_of(a, a.w, begin, end);
}

void multiply_codes(const float* x, int64_t tokens, const CodeProduct& product, int64_t begin, int64_t end,
                    float* /*scratch*/) {
  const CodeMatrix& m = product.matrix;
  std::vector<float> w(static_cast<size_t>(m.cols));
  for (int64_t row = begin * kCodePanelRows; row < std::min(end * kCodePanelRows, m.rows); ++row) {
    portable::dequantize_row(m, row, w.data());
    const float* bias = product.bias == nullptr ? nullptr : product.bias + row;
    matmul_rows({x, m.cols, tokens, w.data(), bias, 1, m.cols, product.y + row, m.rows}, 0, 1, nullptr);
  }
}

/// matmul_rows reads W as it is.
template <class W>
void copy_weights(const float* w, int64_t rows, int64_t cols, W* packed) {
  for (int64_t i = 0; i < rows * cols; ++i) write(packed + i, w[i]);
}

float value_of(float x) { return x; }
float value_of(Half x) { return from_f16(x.bits); }
float value_of(int8_t x) { return x; }

/// Of a position; of others than int8_t 1.
double scale_at(const float* scales, int64_t position) { return scales == nullptr ? 1.0 : scales[position]; }

template <class T>
void attend_query(const AttentionArguments<T>& a, const float* q, int64_t position, float* out) {
  const int64_t first = a.window > 0 ? std::max<int64_t>(0, position - a.window + 1) : 0;
  std::vector<double> scores;
  for (int64_t key = first; key <= position; ++key) {
    double score = 0;
    for (int64_t i = 0; i < a.dim; ++i) score += static_cast<double>(q[i]) * value_of(a.keys[key_index(key, i, a.dim)]);
    scores.push_back(score * scale_at(a.key_scales, key) / std::sqrt(static_cast<double>(a.dim)));
  }
  const double peak = *std::max_element(scores.begin(), scores.end());
  double total = 0;
  for (double& score : scores) total += score = std::exp(score - peak);
  for (int64_t i = 0; i < a.dim; ++i) {
    double sum = 0;
    for (size_t i_key = 0; i_key < scores.size(); ++i_key) {
      const int64_t key = first + static_cast<int64_t>(i_key);
      sum += scores[i_key] * scale_at(a.value_scales, key) * value_of(a.values[key * a.dim + i]);
    }
    out[i] = static_cast<float>(sum / total);
  }
}

template <class T>
void attend_queries(const AttentionArguments<T>& a, float* /*scratch*/) {
  for (int64_t t = 0; t < a.count; ++t) {
    for (int64_t head = 0; head < a.heads; ++head) {
      const int64_t offset = t * a.stride + head * a.dim;
      attend_query(a, a.q + offset, a.position + t, a.out + offset);
    }
  }
}

float round_to_int8_values(const float* x, int64_t n, int8_t* codes) {
  float most = 0;
  for (int64_t i = 0; i < n; ++i) most = std::max(most, std::abs(x[i]));
  const bool is_finite = std::all_of(x, x + n, [](float value) { return std::isfinite(value); });
  const float scale = is_finite ? most / 127.0f : NAN;
  for (int64_t i = 0; i < n; ++i)
    codes[i] = scale > 0 ? static_cast<int8_t>(std::nearbyint(std::clamp(x[i] / scale, -128.0f, 127.0f))) : int8_t{0};
  return scale;
}

void round_to_bf16_values(const float* x, int64_t n, Bf16* y) {
  for (int64_t i = 0; i < n; ++i) write(y + i, x[i]);
}

template <class T>
void exp_values(const T* x, int64_t n, T* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<T>(std::exp(static_cast<double>(x[i])));
}

void log_values(const float* x, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<float>(std::log(static_cast<double>(x[i])));
}

}  // namespace

const KernelTable kReferenceTable = {
    .rms_norm = {rms_norm<float, float>, rms_norm_backward<float, float>},
    .rms_norm_to_bf16 = {rms_norm<float, Bf16>, rms_norm_backward<float, Bf16>},
    .rms_norm_bf16 = {rms_norm<Bf16, Bf16>, rms_norm_backward<Bf16, Bf16>},
    .elementwise = {rope<float>, swiglu<float>, swiglu_backward<float>},
    .elementwise_bf16 = {rope<Bf16>, swiglu<Bf16>, swiglu_backward<Bf16>},
    .logit_loss = logit_loss,
    .logit_score = logit_score,
    .seq_forward = portable::seq_forward,
    .seq_backward = portable::seq_backward,
    .matmul = matmul_rows,
    .matmul_bf16 = nullptr,
    .pack_weights = copy_weights<float>,
    .pack_weights_bf16 = copy_weights<Bf16>,
    .pack_weights_f16 = copy_weights<Half>,
    .packed_rows = 1,
    .code_matmul = portable::code_matmul,
    .code_matmul_float = multiply_codes,
    .code_matmul_bf16 = nullptr,
    .round_to_int8 = round_to_int8_values,
    .round_to_bf16 = round_to_bf16_values,
    .attend = attend_queries<float>,
    .attend_half = attend_queries<Half>,
    .attend_int8 = attend_queries<int8_t>,
    .exp = exp_values<float>,
    .exp_double = exp_values<double>,
    .log = log_values,
};

}  // namespace crumb::kernels
