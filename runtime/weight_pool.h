// Weights of several models of one program: what is the same in two of them, to the last bit, is in memory once.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <span>
#include <typeindex>
#include <utility>
#include <vector>

namespace crumb::runtime {

template <class T, class A>
bool same_bits(const std::vector<T, A>& a, const std::vector<T, A>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}
template <class T, class A>
int64_t bytes_of(const std::vector<T, A>& values) {
  return static_cast<int64_t>(values.size() * sizeof(T));
}

/// By what is in them, wherever it came from: models that are loaded with one pool share embeddings, norms, heads and
/// linears that are held in the same form with the same values. It owns nothing; models may go in any order.
class WeightPool {
 public:
  /// What is held from now on is of another model.
  void begin_model() { ++model_; }
  /// `value`, or what is held already and has the same bits: same_bits(T, T) and bytes_of(T) are looked up. Two that
  /// differ do so early, so comparing with all takes no time.
  template <class T>
  std::shared_ptr<const T> hold(std::shared_ptr<const T> value) {
    auto& held = held_[typeid(T)];
    for (const auto& [other, model] : held) {
      const auto same = std::static_pointer_cast<const T>(other.lock());
      if (same == nullptr || !same_bits(*same, *value)) continue;
      if (model != model_) shared_bytes_ += bytes_of(*same);
      return same;
    }
    held.push_back({value, model_});
    return value;
  }

  /// Of one model, that would have been held once more for another.
  int64_t shared_bytes() const { return shared_bytes_; }

 private:
  struct Held {
    std::weak_ptr<const void> value;
    int model;
  };
  std::map<std::type_index, std::vector<Held>> held_;
  int model_ = 0;
  int64_t shared_bytes_ = 0;
};

/// Of a vector of numbers.
template <class T, class A>
std::span<uint8_t> bytes_in(std::vector<T, A>& values) {
  return {reinterpret_cast<uint8_t*>(values.data()), values.size() * sizeof(T)};
}
template <class T, class A>
std::span<const uint8_t> bytes_in(const std::vector<T, A>& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(T)};
}

/// Through a pool, or null for none.
template <class T>
std::shared_ptr<const T> hold_in(WeightPool* pool, T value) {
  auto held = std::make_shared<const T>(std::move(value));
  return pool == nullptr ? held : pool->hold(std::move(held));
}

}  // namespace crumb::runtime
