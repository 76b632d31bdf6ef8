// Matrix products of CUTLASS for sm_80, which are known to be right on GPUs: cutlass_test.py executes their PTX. The
// host's half makes the arguments of their launches.
#include <cutlass/cutlass.h>
#include <cutlass/gemm/device/gemm.h>

namespace {

using namespace cutlass;
using gemm::GemmShape;
using Row = layout::RowMajor;
using Column = layout::ColumnMajor;

template <class Out, int kElements, class Sum>
using Epilogue = epilogue::thread::LinearCombination<Out, kElements, Sum, Sum>;

template <class A, class LayoutA, class B, class LayoutB, class Out, class Sum, class Block, class Warp,
          class Instruction, int kStages>
using Gemm = gemm::device::Gemm<A, LayoutA, B, LayoutB, Out, Row, Sum, arch::OpClassTensorOp, arch::Sm80, Block, Warp,
                                Instruction, Epilogue<Out, 128 / sizeof_bits<Out>::value, Sum>,
                                gemm::threadblock::GemmIdentityThreadblockSwizzle<>, kStages>;

using Bf16 = Gemm<bfloat16_t, Row, bfloat16_t, Row, float, float, GemmShape<128, 128, 32>, GemmShape<64, 64, 32>,
                  GemmShape<16, 8, 16>, 3>;
using F16 = Gemm<half_t, Row, half_t, Column, half_t, half_t, GemmShape<64, 128, 32>, GemmShape<32, 64, 32>,
                 GemmShape<16, 8, 16>, 4>;
using Tf32 =
    Gemm<float, Row, float, Column, float, float, GemmShape<64, 64, 32>, GemmShape<32, 32, 32>, GemmShape<16, 8, 8>, 3>;
using S8 = Gemm<int8_t, Row, int8_t, Column, int32_t, int32_t, GemmShape<128, 64, 64>, GemmShape<64, 32, 64>,
                GemmShape<16, 8, 32>, 3>;
using S4 = Gemm<int4b_t, Row, int4b_t, Column, int32_t, int32_t, GemmShape<64, 64, 128>, GemmShape<32, 32, 128>,
                GemmShape<16, 8, 64>, 3>;

template <class G>
__device__ void run(const typename G::GemmKernel::Params& params) {
  extern __shared__ __align__(16) char shared[];
  typename G::GemmKernel()(params, *reinterpret_cast<typename G::GemmKernel::SharedStorage*>(shared));
}

/// D = A B + C. Returns the bytes of the kernel's argument; launch: blocks along x, y, z, threads, bytes of shared
/// memory.
template <class G>
int prepare(int m, int n, int k, void* a, void* b, void* c, void* d, void* argument, int* launch) {
  using Kernel = typename G::GemmKernel;
  const typename G::ThreadblockSwizzle swizzle;
  const auto tiles = swizzle.get_tiled_shape(
      {m, n, k}, {G::ThreadblockShape::kM, G::ThreadblockShape::kN, G::ThreadblockShape::kK}, 1);
  const bool columns = std::is_same_v<typename G::LayoutB, Column>;
  using Scale = typename G::EpilogueOutputOp::ElementCompute;
  const typename Kernel::Params params({m, n, k}, tiles, {static_cast<typename G::ElementA*>(a), k},
                                       {static_cast<typename G::ElementB*>(b), columns ? k : n},
                                       {static_cast<typename G::ElementC*>(c), n},
                                       {static_cast<typename G::ElementC*>(d), n}, {Scale(1), Scale(1)}, nullptr);
  memcpy(argument, &params, sizeof params);
  const dim3 grid = swizzle.get_grid_shape(tiles);
  const int values[] = {int(grid.x), int(grid.y), int(grid.z), Kernel::kThreadCount,
                        int(sizeof(typename Kernel::SharedStorage))};
  memcpy(launch, values, sizeof values);
  return int(sizeof params);
}

}  // namespace

#define GEMM(name, Type)                                                                                 \
  extern "C" __global__ void name(Type::GemmKernel::Params params) { run<Type>(params); }                \
  extern "C" int prepare_##name(int m, int n, int k, void* a, void* b, void* c, void* d, void* argument, \
                                int* launch) {                                                           \
    return prepare<Type>(m, n, k, a, b, c, d, argument, launch);                                         \
  }
GEMM(bf16, Bf16)
GEMM(f16, F16)
GEMM(tf32, Tf32)
GEMM(s8, S8)
GEMM(s4, S4)
