# CRUMB_NVCC: whether there is an nvcc (of CUDA 12 or later, which has C++20) on the PATH or in CUDACXX that works. Asked for where something needs it.
# CRUMB_CUDA_KERNELS: whether kernels/cuda and runtime/cuda become part of the program: with nvcc, where LibTorch has its CUDA libraries or CUDA was asked
# for by CRUMB_CUDA=ON. Without them the operators of a GPU are composed of Torch's, which is slower, and models run on the CPU alone. Inside another
# project only where that says CRUMB_CUDA=ON.
set(CRUMB_CUDA_KERNELS OFF)
set(CRUMB_NVCC OFF)
set(wants_cuda_kernels OFF)
if(CRUMB_CUDA STREQUAL "ON" OR (cublas AND PROJECT_IS_TOP_LEVEL AND NOT CRUMB_CUDA STREQUAL "OFF"))
  set(wants_cuda_kernels ON)
endif()
# A test executes the decoder's kernels on the CPU (tests/ptx), which takes PTX alone: once, in builds without LibTorch.
set(CRUMB_CUDA_ON_PTX OFF)
if(CRUMB_TESTS AND NOT CRUMB_TORCH AND NOT CRUMB_SANITIZE AND NOT CMAKE_CROSSCOMPILING)
  set(CRUMB_CUDA_ON_PTX ON)
endif()
if(wants_cuda_kernels OR CRUMB_CUDA_ON_PTX)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
  endif()
  if(CMAKE_CUDA_COMPILER AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12)
    # CMake older than the compiler does not know that it has C++20.
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    endif()
    find_package(CUDAToolkit REQUIRED GLOBAL)   # a project around this one links the runtime, too
    set(CRUMB_NVCC ON)
    set(CRUMB_CUDA_KERNELS ${wants_cuda_kernels})
  elseif(wants_cuda_kernels)
    message(STATUS "no nvcc that works, of CUDA 12 or later: a GPU will do without the kernels of kernels/cuda, and models run on the CPU alone")
  endif()
endif()
if(NOT CRUMB_NVCC)
  set(CRUMB_CUDA_ON_PTX OFF)
endif()
