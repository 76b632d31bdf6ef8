# kernels/cuda is built where LibTorch has its CUDA libraries and nvcc is on the PATH (or in CUDACXX). Without nvcc the operators of a GPU are
# composed of Torch's, which is slower.
set(CRUMB_CUDA_KERNELS OFF)
if(cublas AND NOT CRUMB_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    # CMake older than the compiler does not know that it has C++20.
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    endif()
    set(CRUMB_CUDA_KERNELS ON)
  else()
    message(STATUS "no nvcc: training on a GPU will do without the kernels of kernels/cuda")
  endif()
endif()
