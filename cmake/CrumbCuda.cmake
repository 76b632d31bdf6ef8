# kernels/cuda is built where LibTorch has its CUDA libraries and nvcc (of CUDA 12 or later, which has C++20) is on the PATH or in CUDACXX. Without it
# the operators of a GPU are composed of Torch's, which is slower. Inside another project only where that says CRUMB_CUDA=ON.
set(CRUMB_CUDA_KERNELS OFF)
if(cublas AND (CRUMB_CUDA STREQUAL "ON" OR (PROJECT_IS_TOP_LEVEL AND NOT CRUMB_CUDA STREQUAL "OFF")))
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
    set(CRUMB_CUDA_KERNELS ON)
  else()
    message(STATUS "no nvcc that works, of CUDA 12 or later: training on a GPU will do without the kernels of kernels/cuda")
  endif()
endif()
