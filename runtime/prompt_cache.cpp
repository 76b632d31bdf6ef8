#include "runtime/prompt_cache.h"

#include <algorithm>
#include <cstring>

#include "core/common/error.h"
#include "core/common/hash.h"
#include "core/formats/safetensors.h"
#include "runtime/kv_cache.h"

namespace crumb::runtime {
namespace {

using formats::DType;

constexpr const char* kFormat = "crumb prompt cache 1";
constexpr int64_t kFloat = sizeof(float);

std::string_view bytes_of(const void* data, int64_t bytes) {
  return {static_cast<const char*>(data), static_cast<size_t>(bytes)};
}

/// Calls visit(layer, is_key, head) for the keys and then the values of every head of every layer.
template <class Visit>
void for_each_head(const KvCache& cache, const Visit& visit) {
  for (int64_t layer = 0; layer < cache.num_layers(); ++layer) {
    for (const bool is_key : {true, false}) {
      for (int64_t head = 0; head < cache.kv_heads(layer); ++head) visit(layer, is_key, head);
    }
  }
}

std::vector<float> floats_of(const KvCache& cache, int64_t layer, bool is_key, int64_t head, int64_t length) {
  return is_key ? cache.keys(layer, head, length) : cache.values(layer, head, length);
}

std::string tensor_name(int64_t layer, bool is_key) { return fmt::format("{}.{}", layer, is_key ? "keys" : "values"); }

/// Of tokens and of what floats_of(layer, is_key, head) gives, as it lies in a file: what a cache makes of a damaged
/// number may be the same.
template <class FloatsOf>
std::string hash_of(const KvCache& cache, std::span<const TokenId> tokens, const FloatsOf& bytes_of_head) {
  uint64_t h = hash_bytes(0, bytes_of(tokens.data(), static_cast<int64_t>(tokens.size_bytes())));
  for_each_head(cache, [&](int64_t layer, bool is_key, int64_t head) {
    h = bytes_of_head(layer, is_key, head, [h](std::string_view bytes) { return hash_bytes(h, bytes); });
  });
  return fmt::format("{:016x}", h);
}
std::string hash_of_cache(const KvCache& cache, std::span<const TokenId> tokens) {
  return hash_of(cache, tokens, [&](int64_t layer, bool is_key, int64_t head, const auto& hashed) {
    const auto floats = floats_of(cache, layer, is_key, head, static_cast<int64_t>(tokens.size()));
    return hashed(bytes_of(floats.data(), static_cast<int64_t>(floats.size()) * kFloat));
  });
}
/// The tensors have the shapes of the cache.
std::string hash_of_file(const formats::SafetensorsReader& reader, const KvCache& cache,
                         std::span<const TokenId> tokens) {
  return hash_of(cache, tokens, [&](int64_t layer, bool is_key, int64_t head, const auto& hashed) {
    const int64_t bytes = static_cast<int64_t>(tokens.size()) * cache.head_dim(layer) * kFloat;
    return hashed(bytes_of(reader.bytes(reader.at(tensor_name(layer, is_key))).data() + head * bytes, bytes));
  });
}

template <class Cache, class State>
Cache& as_cache(State& state) {
  auto* cache = dynamic_cast<Cache*>(&state);
  CRUMB_ASSERT(cache != nullptr);
  return *cache;
}

std::vector<TokenId> read_tokens(const formats::SafetensorsReader& reader, const std::string& name,
                                 const arch::DecoderSpec& spec) {
  const auto& tensor = reader.at("tokens");
  const bool is_list = tensor.dtype == DType::i32 && tensor.shape.size() == 1;
  CRUMB_CHECK(is_list && tensor.elements() > 0 && tensor.elements() <= spec.context_length,
              "{}: a prompt cache with {} tokens, the model holds {}", name, tensor.elements(), spec.context_length);
  std::vector<TokenId> tokens(static_cast<size_t>(tensor.elements()));
  std::memcpy(tokens.data(), reader.bytes(tensor).data(), tokens.size() * sizeof(TokenId));
  return tokens;
}

void read_layers(const formats::SafetensorsReader& reader, const std::string& name, int64_t length, KvCache& cache) {
  const auto bytes_of_layer = [&](int64_t layer, bool is_key) {
    const auto& tensor = reader.at(tensor_name(layer, is_key));
    const std::vector<int64_t> shape = {cache.kv_heads(layer), length, cache.head_dim(layer)};
    CRUMB_CHECK(tensor.dtype == DType::f32 && tensor.shape == shape,
                "{}: {} is not of the shape that the model's keys and values have", name, tensor.name);
    return reader.bytes(tensor).data();
  };
  for (int64_t layer = 0; layer < cache.num_layers(); ++layer) {
    const int64_t dim = cache.head_dim(layer);
    const auto *keys = bytes_of_layer(layer, true), *values = bytes_of_layer(layer, false);
    std::vector<float> key(static_cast<size_t>(dim)), value(key.size());
    for (int64_t row = 0; row < cache.kv_heads(layer) * length; ++row) {
      std::memcpy(key.data(), keys + row * dim * kFloat, key.size() * sizeof(float));
      std::memcpy(value.data(), values + row * dim * kFloat, value.size() * sizeof(float));
      cache.put(layer, row / length, row % length, key.data(), value.data());
    }
  }
}

}  // namespace

void save_prompt_cache(const Path& path, const SequenceState& state, std::span<const TokenId> tokens,
                       const std::string& model) {
  const auto& cache = as_cache<const KvCache>(state);
  const auto length = static_cast<int64_t>(tokens.size());
  CRUMB_ASSERT(length > 0 && length <= cache.length());
  formats::SafetensorsWriter writer({{"format", kFormat}, {"model", model}, {"hash", hash_of_cache(cache, tokens)}});
  writer.declare("tokens", DType::i32, {length});
  for (int64_t layer = 0; layer < cache.num_layers(); ++layer) {
    for (const bool is_key : {true, false})
      writer.declare(tensor_name(layer, is_key), DType::f32, {cache.kv_heads(layer), length, cache.head_dim(layer)});
  }
  writer.begin_file(path);
  writer.write(tokens.data(), static_cast<int64_t>(tokens.size_bytes()));
  for_each_head(cache, [&](int64_t layer, bool is_key, int64_t head) {
    const auto floats = floats_of(cache, layer, is_key, head, length);
    writer.write(floats.data(), static_cast<int64_t>(floats.size()) * kFloat);
  });
  writer.finish();
}

std::vector<TokenId> load_prompt_cache(const Path& path, const Decoder& decoder, SequenceState& state,
                                       const std::string& model) {
  const std::string name = path.string();
  const formats::SafetensorsReader reader(path);
  CRUMB_CHECK(reader.metadata("format") == kFormat, "{}: this is no prompt cache that crumb has written", name);
  CRUMB_CHECK(reader.metadata("model") == model,
              "{}: a prompt cache of another model, or computed in another way; remove it, or name another file", name);
  auto& cache = as_cache<KvCache>(state);
  auto tokens = read_tokens(reader, name, decoder.spec());
  cache.clear();
  cache.reserve(static_cast<int64_t>(tokens.size()));
  read_layers(reader, name, static_cast<int64_t>(tokens.size()), cache);
  CRUMB_CHECK(reader.metadata("hash") == hash_of_file(reader, cache, tokens),
              "{}: the prompt cache is damaged; remove it", name);
  cache.set_length(static_cast<int64_t>(tokens.size()));
  return tokens;
}

}  // namespace crumb::runtime
