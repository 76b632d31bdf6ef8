// Kernels of bench/cuda_facts.cu: what a memory system, an issue port and a first 2-bit product do on this card.
//
// Every __global__ function has C linkage, so that its compiled PTX can also be executed by name without a GPU. Kernels
// read the machine (grid size, shared memory) from their launch; what is compared is fixed by template arguments of
// their bodies.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace facts {

// ---- layout T16x128 --------------------------------------------------------------------------------------
// Tile = 16 rows x 128 k of 2-bit codes = 512 bytes = 32 lanes x 16 bytes. Tiles are ordered [row tile][k tile].
// Lane L: g = L / 4, t = L % 4; word i of its uint4 belongs to row g + 8 (i & 1).
//
//   16-bit order: bits 16 h + 2 f of word i    k = 16 f + 2 t + 8 (i >> 1) + h     A fragment f of mma.m16n8k16
//   8-bit order:  bits 8 b + 2 j of word i     k = 32 j + 4 t + b + 16 (i >> 1)    A fragment j of mma.m16n8k32

constexpr int kTileRows = 16, kTileK = 128, kTileBytes = 512, kTokens = 8;  // kTokens: columns of one mma

enum class Order { k16Bit, k8Bit };

struct CodeAt {
  int lane, word, bit;
};

__host__ __device__ constexpr CodeAt code_at(Order order, int row, int k) {
  if (order == Order::k16Bit) {
    const int field = k / 16, high = k / 8 % 2, t = k % 8 / 2, half = k % 2;
    return {row % 8 * 4 + t, row / 8 + 2 * high, 16 * half + 2 * field};
  }
  const int field = k / 32, high = k / 16 % 2, t = k % 16 / 4, byte = k % 4;
  return {row % 8 * 4 + t, row / 8 + 2 * high, 8 * byte + 2 * field};
}

/// Index of the 32-bit word that holds code (row, k) of a matrix with `cols` columns (a multiple of 128), and its bit.
struct WordAt {
  size_t index;
  int bit;
};

__host__ __device__ constexpr WordAt word_at(Order order, int row, int k, int cols) {
  const CodeAt c = code_at(order, row % kTileRows, k % kTileK);
  const size_t tile = static_cast<size_t>(row / kTileRows) * (cols / kTileK) + k / kTileK;
  return {tile * (kTileBytes / 4) + c.lane * 4 + c.word, c.bit};
}

__host__ __device__ inline int code_of(const uint32_t* words, Order order, int row, int k, int cols) {
  const WordAt at = word_at(order, row, k, cols);
  return words[at.index] >> at.bit & 3;
}

// Activations lie in B fragments, so that a lane reads its registers of one tile with 16-byte loads:
//   element (token, k) -> [k tile][register / 4][lane][register % 4], lane = 4 token + t
// 16-bit: 16 registers a tile (field f, half h: register 2 f + h holds k = 16 f + 2 t + 8 h, + 1); 8-bit: 8 registers
// (k = 32 j + 16 h + 4 t ..+3).

__host__ __device__ constexpr int x_registers(Order order) { return order == Order::k16Bit ? 16 : 8; }

/// Index of element (token, k), counted in elements of 16 or 8 bits.
__host__ __device__ constexpr size_t x_at(Order order, int token, int k) {
  const int tile = k / kTileK, in_tile = k % kTileK;
  const bool wide = order == Order::k16Bit;
  const int per_register = wide ? 2 : 4, step = wide ? 16 : 32;
  const int field = in_tile / step, half = in_tile % step / (step / 2), t = in_tile % (step / 2) / per_register;
  const int reg = 2 * field + half, lane = token * 4 + t;
  const size_t word = (static_cast<size_t>(tile) * x_registers(order) / 4 + reg / 4) * 128 + lane * 4 + reg % 4;
  return word * per_register + in_tile % per_register;
}

/// Powers of 4 by which the bits of field `f` stand above bit 0 once a word is decoded by AND: fields 5..7 after a
/// shift by 10.
__host__ __device__ constexpr int and_power(int f) { return f < 5 ? f : f - 5; }

// ---- small pieces ----------------------------------------------------------------------------------------

__device__ inline uint64_t evict_first_policy() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

/// 16 bytes that are read once: no place in L1, first to leave L2. Volatile keeps the issue order, which is the point.
__device__ inline uint4 load_once(const uint4* p, uint64_t policy) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p), "l"(policy));
  return v;
}

__device__ inline uint4 load_l2(const uint4* p) {
  uint4 v;
  asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
  return v;
}

__device__ inline void wait_for_previous_kernel() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
__device__ inline void let_next_kernel_start() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

__device__ inline uint32_t fold(uint4 v) { return v.x ^ v.y ^ v.z ^ v.w; }

/// XOR over the block; the result is valid in thread 0.
__device__ inline uint32_t block_xor(uint32_t v) {
  __shared__ uint32_t warps[32];
  v = __reduce_xor_sync(~0u, v);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = v;
  __syncthreads();
  uint32_t all = 0;
  if (threadIdx.x == 0)
    for (unsigned w = 0; w < blockDim.x / 32; ++w) all ^= warps[w];
  return all;
}

// ---- memory ----------------------------------------------------------------------------------------------

/// Reads `count` uint4 once with kInFlight loads of 16 bytes always pending per thread; writes one XOR per block.
template <int kInFlight>
__device__ void read_body(const uint4* data, size_t count, uint32_t* out) {
  let_next_kernel_start();
  const uint64_t policy = evict_first_policy();
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  size_t next = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  uint4 slot[kInFlight];
  for (int u = 0; u < kInFlight; ++u, next += stride) slot[u] = next < count ? load_once(data + next, policy) : uint4{};
  uint32_t sum = 0;
  // Slots are refilled as they are consumed: the ring stays full, which an unrolled load-then-use loop would not do.
  for (size_t first = next - kInFlight * stride; first < count; first += kInFlight * stride) {
#pragma unroll
    for (int u = 0; u < kInFlight; ++u, next += stride) {
      sum ^= fold(slot[u]);
      slot[u] = next < count ? load_once(data + next, policy) : uint4{};
    }
  }
  sum = block_xor(sum);
  wait_for_previous_kernel();
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(1024) read_1(const uint4* d, size_t n, uint32_t* o) {
  read_body<1>(d, n, o);
}
extern "C" __global__ void __launch_bounds__(1024) read_2(const uint4* d, size_t n, uint32_t* o) {
  read_body<2>(d, n, o);
}
extern "C" __global__ void __launch_bounds__(1024) read_4(const uint4* d, size_t n, uint32_t* o) {
  read_body<4>(d, n, o);
}
extern "C" __global__ void __launch_bounds__(1024) read_8(const uint4* d, size_t n, uint32_t* o) {
  read_body<8>(d, n, o);
}

__device__ inline uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

__device__ inline void barrier_init(uint64_t* barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(barrier)) : "memory");
}

/// One thread: announces `bytes` on `barrier` and starts the copy that will deliver them.
__device__ inline void bulk_copy(void* to, const void* from, uint32_t bytes, uint64_t* barrier, uint64_t policy) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
          "r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier)), "l"(policy)
      : "memory");
}

/// Stops the kernel with an error instead of waiting for ever.
__device__ inline void barrier_wait(uint64_t* barrier, uint32_t parity) {
  for (int tries = 0; tries < 1 << 22; ++tries) {
    uint32_t done;
    asm volatile("{\n .reg .pred p;\n mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n selp.u32 %0, 1, 0, p;\n}"
                 : "=r"(done)
                 : "r"(shared_address(barrier)), "r"(parity)
                 : "memory");
    if (done) return;
  }
  __trap();
}

constexpr int kBulkChunk = 8192;  // bytes of one bulk copy

/// As read_body, through shared memory: a ring of `stages` bulk copies of 8 KB. `count` uint4, a multiple of a chunk.
extern "C" __global__ void __launch_bounds__(256)
    read_bulk(const uint4* data, size_t count, uint32_t* out, int stages) {
  extern __shared__ __align__(128) uint4 ring[];
  __shared__ uint64_t full[32];
  constexpr size_t kPer = kBulkChunk / sizeof(uint4);
  const uint64_t policy = evict_first_policy();
  let_next_kernel_start();
  if (threadIdx.x == 0) {
    for (int s = 0; s < stages; ++s) barrier_init(&full[s]);
    asm volatile("fence.mbarrier_init.release.cluster; fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads();
  const size_t chunks = count / kPer;
  auto start = [&](size_t i, int stage) {  // i-th chunk of this block
    const size_t chunk = blockIdx.x + i * gridDim.x;
    if (chunk < chunks) bulk_copy(ring + stage * kPer, data + chunk * kPer, kBulkChunk, &full[stage], policy);
  };
  if (threadIdx.x == 0)
    for (int s = 0; s < stages; ++s) start(s, s);
  uint32_t sum = 0, parity = 0;
  int stage = 0;
  for (size_t i = 0; blockIdx.x + i * gridDim.x < chunks; ++i) {
    barrier_wait(&full[stage], parity);
    for (unsigned j = threadIdx.x; j < kPer; j += blockDim.x) sum ^= fold(ring[stage * kPer + j]);
    __syncthreads();  // all have read the stage: it may be filled again
    if (threadIdx.x == 0) start(i + stages, stage);
    if (++stage == stages) stage = 0, parity ^= 1;
  }
  sum = block_xor(sum);
  wait_for_previous_kernel();
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

/// Copies `count` uint4, four loads in flight per thread.
extern "C" __global__ void __launch_bounds__(1024) copy_4(const uint4* from, uint4* to, size_t count) {
  const uint64_t policy = evict_first_policy();
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += 4 * stride) {
    uint4 v[4];
#pragma unroll
    for (int u = 0; u < 4; ++u)
      if (i + u * stride < count) v[u] = load_once(from + i + u * stride, policy);
#pragma unroll
    for (int u = 0; u < 4; ++u)
      if (i + u * stride < count) __stcs(to + i + u * stride, v[u]);
  }
}

/// Each block reads `count` uint4 from data + block * stride, `repeats` times: from L2 when all of it fits there.
/// stride 0: all read the same.
extern "C" __global__ void __launch_bounds__(1024)
    read_l2(const uint4* data, size_t stride, int count, int repeats, uint32_t* out) {
  const uint4* mine = data + blockIdx.x * stride;
  uint32_t sum = 0;
  for (int r = 0; r < repeats; ++r)
    for (int i = threadIdx.x; i < count; i += 4 * blockDim.x) {
      uint4 v[4];
#pragma unroll
      for (int u = 0; u < 4; ++u)
        v[u] = i + u * static_cast<int>(blockDim.x) < count ? load_l2(mine + i + u * blockDim.x) : uint4{};
#pragma unroll
      for (int u = 0; u < 4; ++u) sum += fold(v[u]);
    }
  sum = block_xor(sum);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

extern "C" __global__ void empty_node() {}

extern "C" __global__ void empty_node_pdl() {
  let_next_kernel_start();
  wait_for_previous_kernel();
}

// ---- data ------------------------------------------------------------------------------------------------

__host__ __device__ inline uint32_t hash32(uint64_t x) {  // splitmix64, upper half
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return static_cast<uint32_t>((x ^ (x >> 31)) >> 32);
}

/// Uniform in [-1, 1) of 24 bits.
__host__ __device__ inline float uniform(uint64_t seed, uint64_t i) {
  return static_cast<float>(hash32(seed * 0x100000000ull + i) >> 8) * (1.0f / 8388608.0f) - 1.0f;
}

extern "C" __global__ void fill_bits(uint32_t* out, size_t count, uint32_t seed) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride)
    out[i] = hash32(seed * 0x100000000ull + i);
}

extern "C" __global__ void fill_bf16(__nv_bfloat16* out, size_t count, uint32_t seed) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride)
    out[i] = __float2bfloat16_rn(uniform(seed, i));
}

extern "C" __global__ void fill_float(float* out, size_t count, uint32_t seed, float mid, float spread) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride)
    out[i] = mid + spread * uniform(seed, i);
}

// ---- tensor cores ----------------------------------------------------------------------------------------

struct MmaBf16 {
  static __device__ void run(float (&c)[4], const uint32_t* a, const uint32_t* b) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
};

struct MmaF16 {
  static __device__ void run(float (&c)[4], const uint32_t* a, const uint32_t* b) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
};

struct MmaU8S8 {
  static __device__ void run(int (&c)[4], const uint32_t* a, const uint32_t* b) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
};

/// One m16n8k16 on A [16][16] and B [8][16] of raw half bits (row-major): C [16][8].
extern "C" __global__ void mma_once(const uint16_t* a, const uint16_t* b, float* c) {
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  auto pair = [](const uint16_t* m, int row, int k) {
    return m[row * 16 + k] | static_cast<uint32_t>(m[row * 16 + k + 1]) << 16;
  };
  const uint32_t fa[4] = {pair(a, g, 2 * t), pair(a, g + 8, 2 * t), pair(a, g, 2 * t + 8), pair(a, g + 8, 2 * t + 8)};
  const uint32_t fb[2] = {pair(b, g, 2 * t), pair(b, g, 2 * t + 8)};
  float acc[4] = {};
  MmaF16::run(acc, fa, fb);
  for (int i = 0; i < 4; ++i) c[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = acc[i];
}

// ---- issue rates -----------------------------------------------------------------------------------------
// 8 independent chains per thread of one instruction; the block's clocks tell how many the multiprocessor issues per
// clock.

constexpr int kChains = 8;

struct OpLop3 {
  static __device__ void run(uint32_t& x, uint32_t b, uint32_t c) {
    asm volatile("lop3.b32 %0, %0, %1, %2, 0x6a;" : "+r"(x) : "r"(b), "r"(c));
  }
};
struct OpShf {
  static __device__ void run(uint32_t& x, uint32_t b, uint32_t c) {
    asm volatile("shf.r.wrap.b32 %0, %0, %1, %2;" : "+r"(x) : "r"(b), "r"(c));
  }
};
struct OpPrmt {
  static __device__ void run(uint32_t& x, uint32_t b, uint32_t c) {
    asm volatile("prmt.b32 %0, %0, %1, %2;" : "+r"(x) : "r"(b), "r"(c));
  }
};
struct OpHfma2 {
  static __device__ void run(uint32_t& x, uint32_t b, uint32_t c) {
    asm volatile("fma.rn.f16x2 %0, %0, %1, %2;" : "+r"(x) : "r"(b), "r"(c));
  }
};
struct OpDp4a {
  static __device__ void run(uint32_t& x, uint32_t b, uint32_t c) {
    asm volatile("dp4a.u32.s32 %0, %1, %2, %0;" : "+r"(x) : "r"(b), "r"(c));
  }
};
struct OpImad {
  static __device__ void run(uint32_t& x, uint32_t b, uint32_t c) {
    asm volatile("mad.lo.u32 %0, %0, %1, %2;" : "+r"(x) : "r"(b), "r"(c));
  }
};
struct OpFfma {
  static __device__ void run(uint32_t& x, uint32_t b, uint32_t c) {
    asm volatile("fma.rn.f32 %0, %0, %1, %2;"
                 : "+f"(reinterpret_cast<float&>(x))
                 : "f"(__uint_as_float(b)), "f"(__uint_as_float(c)));
  }
};
/// One LOP3 and one HFMA2: do the two pipes run side by side?
struct OpLop3Hfma2 {
  static __device__ void run(uint32_t& x, uint32_t b, uint32_t c) {
    OpHfma2::run(x, b, c);
    OpLop3::run(x, b, c);
  }
};

/// The clocks of one block: a barrier before, a barrier after, so that the slowest warp counts.
template <class Body>
__device__ void timed(long long* clocks, Body body) {
  __syncthreads();
  const long long start = clock64();
  body();
  __syncthreads();
  if (threadIdx.x == 0) clocks[blockIdx.x] = clock64() - start;
}

template <class Op>
__device__ void rate_body(uint32_t* out, long long* clocks, int iterations, uint32_t b, uint32_t c) {
  uint32_t x[kChains];
  for (int i = 0; i < kChains; ++i) x[i] = threadIdx.x * kChains + i;
  timed(clocks, [&] {
#pragma unroll 4
    for (int n = 0; n < iterations; ++n)
#pragma unroll
      for (int i = 0; i < kChains; ++i) Op::run(x[i], b, c);
  });
  uint32_t sum = 0;
  for (int i = 0; i < kChains; ++i) sum ^= x[i];
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

/// 4 independent accumulators per warp. `a` and `b` are the raw operand words: random bits that are not NaN, or
/// subnormals.
template <class Mma, class T>
__device__ void mma_rate_body(uint32_t* out, long long* clocks, int iterations, uint32_t a, uint32_t b) {
  T acc[4][4] = {};
  const uint32_t fa[4] = {a, a ^ (threadIdx.x & 3), a, a ^ (threadIdx.x & 2)}, fb[2] = {b, b ^ (threadIdx.x & 3)};
  timed(clocks, [&] {
#pragma unroll 4
    for (int n = 0; n < iterations; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) Mma::run(acc[i], fa, fb);
  });
  T sum = 0;
  for (auto& four : acc)
    for (T v : four) sum += v;
  out[blockIdx.x * blockDim.x + threadIdx.x] = static_cast<uint32_t>(static_cast<long long>(sum));
}

/// The decode loop's mix: 4 LOP3 feed one HMMA. The words change in every step, or the compiler would take the LOP3 out
/// of the loop.
__device__ inline void mix_body(uint32_t* out, long long* clocks, int iterations, uint32_t a, uint32_t b) {
  float acc[4][4] = {};
  const uint32_t fb[2] = {b, b ^ (threadIdx.x & 3)};
  uint32_t w[4][4];
  for (int i = 0; i < 16; ++i) w[i / 4][i % 4] = a + threadIdx.x * 16 + i;
  timed(clocks, [&] {
#pragma unroll 2
    for (int n = 0; n < iterations; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j)
          asm volatile("lop3.b32 %0, %0, %1, %2, 0x6a;" : "+r"(w[i][j]) : "r"(0x03ff03ffu), "r"(b));
        MmaF16::run(acc[i], w[i], fb);
      }
  });
  float sum = 0;
  for (auto& four : acc)
    for (float v : four) sum += v;
  out[blockIdx.x * blockDim.x + threadIdx.x] = __float_as_uint(sum);
}

#define CRUMB_RATE(name, body)                                                                                        \
  extern "C" __global__ void __launch_bounds__(1024) name(uint32_t* o, long long* t, int n, uint32_t b, uint32_t c) { \
    body(o, t, n, b, c);                                                                                              \
  }
CRUMB_RATE(rate_lop3, rate_body<OpLop3>)
CRUMB_RATE(rate_shf, rate_body<OpShf>)
CRUMB_RATE(rate_prmt, rate_body<OpPrmt>)
CRUMB_RATE(rate_hfma2, rate_body<OpHfma2>)
CRUMB_RATE(rate_dp4a, rate_body<OpDp4a>)
CRUMB_RATE(rate_imad, rate_body<OpImad>)
CRUMB_RATE(rate_ffma, rate_body<OpFfma>)
CRUMB_RATE(rate_lop3_hfma2, rate_body<OpLop3Hfma2>)
CRUMB_RATE(rate_mma_bf16, (mma_rate_body<MmaBf16, float>))
CRUMB_RATE(rate_mma_f16, (mma_rate_body<MmaF16, float>))
CRUMB_RATE(rate_mma_u8s8, (mma_rate_body<MmaU8S8, int>))
CRUMB_RATE(rate_decode_mix, mix_body)
#undef CRUMB_RATE

/// Clocks of block 0 while `nanoseconds` pass: the clock rate of the multiprocessors under no load.
extern "C" __global__ void clock_rate(long long* out, long long nanoseconds) {
  long long start_ns, now_ns;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start_ns));
  const long long start = clock64();
  do asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now_ns));
  while (now_ns - start_ns < nanoseconds);
  out[0] = clock64() - start;
  out[1] = now_ns - start_ns;
}

// ---- skinny product --------------------------------------------------------------------------------------
// y[token][row] = d[row] * sum_k (2 c[row][k] - 3) x[token][k], up to 8 tokens.
//
// Activation-stationary: the warps of a block split K, each keeps the B fragments of its k tiles (registers, or shared
// memory where they are too many) and walks row tiles. Weights go from memory to registers, kDepth row tiles ahead.
// Partial sums of kDepth row tiles meet in shared memory behind one barrier and are added in warp order: the result
// does not depend on timing.

/// What the kernel needs to know of one token: y = scale * d * (alpha * sum - offset).
struct Token {
  float scale;   // undoes the power of two of the activations (or is the step of int8 activations)
  float offset;  // 3 sum x of the scaled activations; exact integer for int8
};

/// fp16, subnormals: `w & 0x00030003 << 2f` is already the operand c 4^f 2^-24; x was divided by 4^f.
struct DecodeAnd {
  using Sum = float;
  static constexpr Order kOrder = Order::k16Bit;
  static constexpr bool kPrescaled = true;
  static constexpr float kAlpha = 33554432.0f;  // 2 * 2^24
  struct Acc {
    float c[2][4] = {};  // two chains: one alone would wait for the latency of its last mma
  };
  static __device__ void multiply(Acc& acc, uint4 w, const uint32_t* x) {
    const uint32_t raw[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int f = 0; f < 8; ++f) {
      uint32_t a[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) a[i] = (f < 5 ? raw[i] : raw[i] >> 10) & 0x00030003u << (2 * and_power(f));
      MmaF16::run(acc.c[f % 2], a, x + 2 * f);
    }
  }
  static __device__ float sum(const Acc& acc, int i) { return acc.c[0][i] + acc.c[1][i]; }
  static __device__ float finish(float s, Token t) { return t.scale * (kAlpha * s - t.offset); }
};

/// fp16, exact 2c - 3: fields are brought to mantissa bits 2, 4, 6, 8 of 1024 and one HFMA2 removes the 1024 (bit 0
/// would need 2051, no half).
struct DecodeMagic {
  using Sum = float;
  static constexpr Order kOrder = Order::k16Bit;
  static constexpr bool kPrescaled = false;
  struct Acc {
    float c[2][4] = {};  // two chains: one alone would wait for the latency of its last mma
  };
  static __device__ uint32_t field(uint32_t word, int power) {  // the two halves' fields at bits 2 power: 2c - 3
    uint32_t magic;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(magic) : "r"(word), "r"(0x00030003u << (2 * power)), "r"(0x64006400u));
    const __half scale = __ushort_as_half((15 + 1 - 2 * power) << 10);  // 2 * 4^-power
    const __half bias = __ushort2half_rn((2048 >> (2 * power)) + 3);    // 515, 131, 35, 11: exact
    const __half2 r = __hfma2(*reinterpret_cast<__half2*>(&magic), __half2(scale, scale), __hneg2(__half2(bias, bias)));
    return *reinterpret_cast<const uint32_t*>(&r);
  }
  static __device__ void multiply(Acc& acc, uint4 w, const uint32_t* x) {
    const uint32_t raw[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int f = 0; f < 8; ++f) {
      uint32_t a[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) a[i] = field(f < 4 ? raw[i] << 2 : raw[i] >> 6, f % 4 + 1);
      MmaF16::run(acc.c[f % 2], a, x + 2 * f);
    }
  }
  static __device__ float sum(const Acc& acc, int i) { return acc.c[0][i] + acc.c[1][i]; }
  static __device__ float finish(float s, Token t) { return t.scale * s; }
};

/// int8 tensor cores, AND only: operands c 4^j, one accumulator per j, combined once. Exact integers.
struct DecodeImma {
  using Sum = int;
  static constexpr Order kOrder = Order::k8Bit;
  static constexpr bool kPrescaled = false;
  struct Acc {
    int c[4][4] = {};
  };
  static __device__ void multiply(Acc& acc, uint4 w, const uint32_t* x) {
    const uint32_t raw[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      uint32_t a[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) a[i] = raw[i] & 0x03030303u << (2 * j);
      MmaU8S8::run(acc.c[j], a, x + 2 * j);
    }
  }
  static __device__ int sum(const Acc& acc, int i) {
    return acc.c[0][i] + (acc.c[1][i] >> 2) + (acc.c[2][i] >> 4) + (acc.c[3][i] >> 6);
  }
  static __device__ float finish(int s, Token t) {
    return t.scale * static_cast<float>(2 * s - static_cast<int>(t.offset));
  }
};

struct SkinnyArgs {
  const uint4* weights;  // T16x128 in the order of the decoder
  const uint4* x;        // B fragments, see x_at
  const float* d;        // [rows] step of each row
  const Token* tokens;   // [num_tokens]
  float* y;              // [num_tokens][rows]
  int rows, num_tokens;  // rows a multiple of 16; 1..8 tokens
  int splits;            // blocks along K (grid.y); more than one: partial sums meet in `meeting`
  void* meeting;         // [splits][rows * 8] sums of the decoder's type
  int* arrived;          // [rows / 16] zero before, zero after
};

/// K = splits * kWarps * kTiles * 128. kShared: activations in shared memory instead of registers.
template <class Decode, int kWarps, int kTiles, int kDepth, bool kShared>
__device__ void skinny_body(const SkinnyArgs& p) {
  using Sum = typename Decode::Sum;
  constexpr int kRegs = x_registers(Decode::kOrder), kOutputs = kTileRows * kTokens, kKTiles = kWarps * kTiles;
  extern __shared__ __align__(16) uint4 shared[];
  Sum* partial = reinterpret_cast<Sum*>(shared);                  // [2][kDepth][kWarps][16 * 8]
  uint4* shared_x = shared + 2 * kDepth * kWarps * kOutputs / 4;  // [kKTiles][kRegs / 4][32]
  __shared__ bool is_last[kDepth];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4;
  const uint64_t policy = evict_first_policy();
  const int row_tiles = p.rows / kTileRows, first_k_tile = blockIdx.y * kKTiles + warp * kTiles;
  const uint4* mine = p.weights + static_cast<size_t>(first_k_tile) * 32 + lane;

  uint4 w[kDepth][kTiles];
  auto fetch = [&](int slot, int row_tile) {
    if (row_tile >= row_tiles) return;
#pragma unroll
    for (int i = 0; i < kTiles; ++i)
      w[slot][i] = load_once(mine + (static_cast<size_t>(row_tile) * p.splits * kKTiles + i) * 32, policy);
  };
#pragma unroll
  for (int u = 0; u < kDepth; ++u) fetch(u, blockIdx.x + u * gridDim.x);  // weights depend on no earlier kernel
  let_next_kernel_start();
  wait_for_previous_kernel();  // the activations do

  uint32_t x[kShared ? 1 : kTiles][kRegs];
#pragma unroll
  for (int i = 0; i < kTiles; ++i)
#pragma unroll
    for (int r = 0; r < kRegs / 4; ++r) {
      const int at = ((first_k_tile + i) * (kRegs / 4) + r) * 32 + lane;
      const uint4 v = group < p.num_tokens ? __ldg(p.x + at) : uint4{};  // lanes of absent tokens multiply by zero
      if constexpr (kShared) {
        shared_x[((warp * kTiles + i) * (kRegs / 4) + r) * 32 + lane] = v;
      } else {
        x[i][4 * r] = v.x, x[i][4 * r + 1] = v.y, x[i][4 * r + 2] = v.z, x[i][4 * r + 3] = v.w;
      }
    }

  int parity = 0;  // the other half of `partial` may still be read by a slow warp
  for (int first = blockIdx.x; first < row_tiles; first += kDepth * gridDim.x, parity ^= 1) {
#pragma unroll
    for (int u = 0; u < kDepth; ++u) {
      const int row_tile = first + u * gridDim.x;
      if (row_tile >= row_tiles) break;
      typename Decode::Acc acc;
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        if constexpr (kShared) {
          uint32_t mx[kRegs];
#pragma unroll
          for (int r = 0; r < kRegs / 4; ++r) {  // a lane reads only what it wrote itself
            const uint4 v = shared_x[((warp * kTiles + i) * (kRegs / 4) + r) * 32 + lane];
            mx[4 * r] = v.x, mx[4 * r + 1] = v.y, mx[4 * r + 2] = v.z, mx[4 * r + 3] = v.w;
          }
          Decode::multiply(acc, w[u][i], mx);
        } else {
          Decode::multiply(acc, w[u][i], x[i]);
        }
      }
      fetch(u, row_tile + kDepth * gridDim.x);
      Sum* to = partial + ((parity * kDepth + u) * kWarps + warp) * kOutputs;
#pragma unroll
      for (int i = 0; i < 4; ++i)
        to[i * 32 + lane] = Decode::sum(acc, i);  // accumulator i of the lane: no bank conflicts
    }
    __syncthreads();

    // Output o of a row tile: accumulator o / 32 of lane o % 32.
    auto for_outputs = [&](auto use) {
      for (int o = threadIdx.x; o < kDepth * kOutputs; o += kWarps * 32)
        if (first + o / kOutputs * static_cast<int>(gridDim.x) < row_tiles && o % 4 * 2 + o / 32 % 2 < p.num_tokens)
          use(o / kOutputs, o % kOutputs);
    };
    auto finish = [&](int u, int o, Sum s) {
      const int row = (first + u * gridDim.x) * kTileRows + o % 32 / 4 + 8 * (o / 64), token = o % 4 * 2 + o / 32 % 2;
      p.y[static_cast<size_t>(token) * p.rows + row] = p.d[row] * Decode::finish(s, p.tokens[token]);
    };
    auto met = [&](int u, int o, int split) -> Sum& {
      return static_cast<Sum*>(
          p.meeting)[(static_cast<size_t>(split) * row_tiles + first + u * gridDim.x) * kOutputs + o];
    };
    for_outputs([&](int u, int o) {
      const Sum* from = partial + (parity * kDepth + u) * kWarps * kOutputs + o;
      Sum s = 0;
#pragma unroll
      for (int v = 0; v < kWarps; ++v) s += from[v * kOutputs];
      if (p.splits == 1) {
        finish(u, o, s);
      } else {
        met(u, o, blockIdx.y) = s;
        __threadfence();
      }
    });
    if (p.splits == 1) continue;
    // The last block to arrive adds all partial sums in the order of K: which one that is changes nothing in the
    // result.
    __syncthreads();
    const int arriving = first + static_cast<int>(threadIdx.x * gridDim.x);
    if (threadIdx.x < kDepth && arriving < row_tiles) {
      is_last[threadIdx.x] = atomicAdd(p.arrived + arriving, 1) == p.splits - 1;
      if (is_last[threadIdx.x]) p.arrived[arriving] = 0;
      __threadfence();
    }
    __syncthreads();
    for_outputs([&](int u, int o) {
      if (!is_last[u]) return;
      Sum s = 0;
      for (int split = 0; split < p.splits; ++split) s += __ldcg(&met(u, o, split));
      finish(u, o, s);
    });
  }
}

constexpr int skinny_shared_bytes(Order order, int warps, int tiles, int depth, bool shared) {
  return 2 * depth * warps * kTileRows * kTokens * 4 + (shared ? warps * tiles * x_registers(order) * 128 : 0);
}

// One line per variant: NAME, decoder, warps, k tiles per warp, row tiles in flight, activations in shared memory.
// clang-format off
#define CRUMB_SKINNY_VARIANTS(V)                   \
  V(and_w16_t1_d4, DecodeAnd, 16, 1, 4, false)     \
  V(and_w16_t1_d8, DecodeAnd, 16, 1, 8, false)     \
  V(and_w8_t1_d4, DecodeAnd, 8, 1, 4, false)       \
  V(and_w8_t2_d2, DecodeAnd, 8, 2, 2, false)       \
  V(and_w8_t2_d4, DecodeAnd, 8, 2, 4, false)       \
  V(and_w16_t2_d2, DecodeAnd, 16, 2, 2, false)     \
  V(and_w16_t2_d4, DecodeAnd, 16, 2, 4, false)     \
  V(and_w16_t2_d4_smem, DecodeAnd, 16, 2, 4, true) \
  V(and_w8_t4_d2, DecodeAnd, 8, 4, 2, false)       \
  V(and_w16_t3_d2, DecodeAnd, 16, 3, 2, false)     \
  V(and_w16_t4_d2, DecodeAnd, 16, 4, 2, false)     \
  V(and_w16_t4_d2_smem, DecodeAnd, 16, 4, 2, true) \
  V(and_w14_t4_d2, DecodeAnd, 14, 4, 2, false)     \
  V(and_w14_t4_d2_smem, DecodeAnd, 14, 4, 2, true) \
  V(magic_w16_t1_d4, DecodeMagic, 16, 1, 4, false) \
  V(magic_w16_t2_d4, DecodeMagic, 16, 2, 4, false) \
  V(imma_w16_t1_d4, DecodeImma, 16, 1, 4, false)   \
  V(imma_w16_t2_d4, DecodeImma, 16, 2, 4, false)   \
  V(imma_w16_t3_d2, DecodeImma, 16, 3, 2, false)   \
  V(imma_w16_t4_d2, DecodeImma, 16, 4, 2, false)   \
  V(imma_w14_t4_d2, DecodeImma, 14, 4, 2, false)
// clang-format on

#define CRUMB_SKINNY_KERNEL(name, decode, warps, tiles, depth, shared)                                              \
  extern "C" __global__ void __launch_bounds__(warps * 32, 1) skinny_##name(const __grid_constant__ SkinnyArgs p) { \
    skinny_body<decode, warps, tiles, depth, shared>(p);                                                            \
  }
CRUMB_SKINNY_VARIANTS(CRUMB_SKINNY_KERNEL)
#undef CRUMB_SKINNY_KERNEL

/// The same product in double from the codes, one thread per output; `magnitude` is the sum of |terms|, what an error
/// is measured against. x [8][cols] holds the values before any power of two.
extern "C" __global__ void skinny_reference(const uint32_t* weights, int order, const float* x, const float* d,
                                            int rows, int cols, int num_tokens, double* y, double* magnitude) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= rows * num_tokens) return;
  const int row = at % rows, token = at / rows;
  double sum = 0, size = 0;
  for (int k = 0; k < cols; ++k) {
    const int weight = 2 * code_of(weights, static_cast<Order>(order), row, k, cols) - 3;
    const double term = static_cast<double>(weight) * x[static_cast<size_t>(token) * cols + k];
    sum += term;
    size += fabs(term);
  }
  y[at] = d[row] * sum;
  magnitude[at] = d[row] * size;
}

// ---- SEQ fake quantization -------------------------------------------------------------------------------
// r = w / alpha; q in {-.75, -.25, .25, .75}; w_q = q alpha. Threshold form: the code is the number of thresholds
// passed. Backward: dw = g where |r| <= .99, else 0; dalpha = gs sum (q - r) g inside, q g outside (q is +-.75 there).

constexpr float kZeroThreshold = -1.4901161e-08f;  // -2^-26: where rint(2 r - .5) in float turns from -1 to 0

__host__ __device__ inline int seq_code(float w, float alpha) {
  return (w > -0.5f * alpha) + (w >= kZeroThreshold * alpha) + (w > 0.5f * alpha);
}

union Eight {
  uint4 raw;
  __nv_bfloat162 pair[4];
};

/// w, w_q [rows][cols] bf16, alpha [rows] float; cols a multiple of 8. One block per row.
extern "C" __global__ void __launch_bounds__(512)
    seq_forward(const uint4* w, const float* alpha, uint4* w_q, int cols) {
  const float a = alpha[blockIdx.x], quarter = 0.25f * a;
  const size_t row = static_cast<size_t>(blockIdx.x) * (cols / 8);
  const uint64_t policy = evict_first_policy();
  for (int i = threadIdx.x; i < cols / 8; i += blockDim.x) {
    Eight in, out;
    in.raw = load_once(w + row + i, policy);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 v = __bfloat1622float2(in.pair[j]);
      out.pair[j] = __floats2bfloat162_rn(static_cast<float>(2 * seq_code(v.x, a) - 3) * quarter,
                                          static_cast<float>(2 * seq_code(v.y, a) - 3) * quarter);
    }
    w_q[row + i] = out.raw;
  }
}

/// The contribution of one weight: returns dw, adds to dalpha.
__host__ __device__ inline float seq_backward_one(float w, float g, float alpha, float inverse, float& dalpha) {
  const float r = w * inverse, q = static_cast<float>(2 * seq_code(w, alpha) - 3) * 0.25f;
  const bool inside = fabsf(r) <= 0.99f;
  dalpha += (inside ? q - r : q) * g;
  return inside ? g : 0.0f;
}

/// g becomes dw in place; dalpha [rows]. Sums in a fixed order: per thread, xor tree in the warp, warps in turn.
extern "C" __global__ void __launch_bounds__(512)
    seq_backward(const uint4* w, uint4* g, const float* alpha, float* dalpha, int cols, float gradient_scale) {
  __shared__ float warps[16];
  const float a = alpha[blockIdx.x], inverse = 1.0f / a;
  const size_t row = static_cast<size_t>(blockIdx.x) * (cols / 8);
  const uint64_t policy = evict_first_policy();
  float sum = 0;
  for (int i = threadIdx.x; i < cols / 8; i += blockDim.x) {
    Eight in, grad, out;
    in.raw = load_once(w + row + i, policy);
    grad.raw = g[row + i];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 v = __bfloat1622float2(in.pair[j]), u = __bfloat1622float2(grad.pair[j]);
      const float low = seq_backward_one(v.x, u.x, a, inverse, sum), high = seq_backward_one(v.y, u.y, a, inverse, sum);
      out.pair[j] = __floats2bfloat162_rn(low, high);
    }
    g[row + i] = out.raw;
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    float total = 0;
    for (unsigned v = 0; v < blockDim.x / 32; ++v) total += warps[v];
    dalpha[blockIdx.x] = gradient_scale * total;
  }
}

}  // namespace facts
