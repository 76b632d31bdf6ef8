#include "runtime/packed_floats.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <utility>
#include <vector>

#include "core/formats/codec.h"
#include "core/formats/dtype.h"
#include "kernels/matmul.h"

namespace crumb::runtime {
namespace {

using formats::DType;
using kernels::Bf16;

constexpr int64_t kChunkFloats = 1 << 16;  // read at once: they stay in the cache until they are packed

/// Of `rows` that a thread takes at once, in whole panels of packed weights.
int64_t chunk_rows(int64_t cols) {
  const int64_t panel = kernels::packed_size(1, 1);
  return std::max<int64_t>(1, kChunkFloats / std::max<int64_t>(1, cols * panel)) * panel;
}

/// Calls body(first row, floats) for all rows, on threads, as long as `goes_on`.
template <class Body>
void for_chunks(const quant::Checkpoint& checkpoint, const quant::StoredTensor& tensor, Executor& executor,
                const std::atomic<bool>& goes_on, const Body& body) {
  const int64_t rows = tensor.desc.rows(), cols = tensor.desc.cols(), step = chunk_rows(cols);
  executor.run_in_turns((rows + step - 1) / step, 1, [&](int64_t begin, int64_t end, int) {
    thread_local std::vector<float> floats;
    floats.resize(static_cast<size_t>(step * cols));
    for (int64_t chunk = begin; chunk < end && goes_on; ++chunk) {
      const int64_t first = chunk * step, last = std::min(first + step, rows);
      checkpoint.read_rows(tensor, first, last, floats.data());
      body(first, std::span<const float>(floats).first(static_cast<size_t>((last - first) * cols)));
    }
  });
}

void pack_to(std::span<const float> from, int64_t cols, float* to) {
  kernels::pack_weights(from.data(), static_cast<int64_t>(from.size()) / cols, cols, to);
}
void pack_to(std::span<const float> from, int64_t cols, Bf16* to) {
  kernels::pack_weights_bf16(from.data(), static_cast<int64_t>(from.size()) / cols, cols, to);
}

void pack_to(std::span<const float> from, int64_t cols, Half* to) {
  kernels::pack_weights_f16(from.data(), static_cast<int64_t>(from.size()) / cols, cols, to);
}

/// Whether bfloat16 holds every one of them.
bool are_bf16(std::span<const float> weights) {
  uint32_t low = 0;
  for (const float w : weights) low |= std::bit_cast<uint32_t>(w) & 0xFFFF;
  return low == 0;
}

/// Whether float16 holds every one of them: eleven significant bits, and multiples of 2^-24.
bool are_f16(std::span<const float> weights) {
  constexpr float kMagic = 0x1.8p23f;  // adding it rounds to an integer
  uint32_t bad = 0;
  for (const float w : weights) {
    const float magnitude = std::abs(w), steps = magnitude * 0x1p24f;
    const uint32_t low = std::bit_cast<uint32_t>(w) & 0x1FFF;
    const uint32_t off_normal = low | static_cast<uint32_t>(magnitude > 65504.0f);
    const auto off_small = static_cast<uint32_t>((steps + kMagic) - kMagic != steps);
    bad |= magnitude < 0x1p-14f ? off_small : off_normal;
  }
  return bad == 0;
}

/// By the names of safetensors and of GGUF; what is computed from such a checkpoint may hold other numbers.
bool is_f16(const quant::StoredTensor& tensor) {
  return tensor.dtype == formats::dtype_name(DType::f16) ||
         tensor.dtype == formats::type_name(formats::TensorType::f16);
}

/// Where packed weights go: what the last panel holds beyond the last row is zeros.
template <class T>
LargeVector<T> room_for_packed(int64_t rows, int64_t cols) {
  LargeVector<T> room(static_cast<size_t>(kernels::packed_size(rows, cols)));
  std::fill(room.end() - std::min(kernels::packed_size(rows, cols), kernels::packed_size(1, cols)), room.end(), T{});
  return room;
}

/// Rows packed as T; false, and early, if `check` refuses some of them.
template <class T, class Check>
bool pack_chunks(const quant::Checkpoint& checkpoint, const quant::StoredTensor& tensor, Executor& executor,
                 const Check& check, LargeVector<T>& room) {
  const int64_t cols = tensor.desc.cols();
  std::atomic<bool> fits{true};
  for_chunks(checkpoint, tensor, executor, fits, [&](int64_t first, std::span<const float> floats) {
    if (check(floats))
      pack_to(floats, cols, room.data() + first * cols);
    else
      fits = false;
  });
  return fits;
}

}  // namespace

DType type_of(const HeldFloats& floats) {
  return std::visit(
      []<class T>(const LargeVector<T>&) {
        return std::is_same_v<T, float> ? DType::f32 : std::is_same_v<T, Bf16> ? DType::bf16 : DType::f16;
      },
      floats);
}

HeldFloats room_for(DType type, int64_t rows, int64_t cols) {
  if (type == DType::bf16) return room_for_packed<Bf16>(rows, cols);
  if (type == DType::f16) return room_for_packed<Half>(rows, cols);
  return room_for_packed<float>(rows, cols);
}

HeldFloats read_packed(const quant::Checkpoint& checkpoint, const quant::StoredTensor& tensor, Executor& executor) {
  const int64_t rows = tensor.desc.rows(), cols = tensor.desc.cols();
  HeldFloats result = room_for_packed<Bf16>(rows, cols);
  if (!pack_chunks(checkpoint, tensor, executor, are_bf16, std::get<LargeVector<Bf16>>(result))) {
    const auto pack_as = [&]<class T>(T, const auto& check) {
      result = HeldFloats();  // the room of one type is given back before another is taken
      result = room_for_packed<T>(rows, cols);
      return pack_chunks(checkpoint, tensor, executor, check, std::get<LargeVector<T>>(result));
    };
    if (!is_f16(tensor) || !pack_as(Half{}, are_f16)) pack_as(float{}, [](std::span<const float>) { return true; });
  }
  checkpoint.release_rows(tensor, 0, rows);
  return result;
}

HeldFloats pack(std::span<const float> weights, int64_t rows, int64_t cols) {
  const auto as = [&]<class T>(LargeVector<T> room) -> HeldFloats {
    pack_to(weights, cols, room.data());
    return room;
  };
  return are_bf16(weights) ? as(room_for_packed<Bf16>(rows, cols)) : as(room_for_packed<float>(rows, cols));
}

}  // namespace crumb::runtime
