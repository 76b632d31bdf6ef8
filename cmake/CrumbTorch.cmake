# LibTorch as the PyPI wheel installs it. find_package(Torch) of that wheel insists on a CUDA toolkit; the CPU libraries need none.
# CRUMB_TORCH_ROOT: the folder that holds torch/ (a site-packages folder). Default: the virtual environment of scripts/setup.sh.
if(NOT CRUMB_TORCH_ROOT)
  file(GLOB candidates ${PROJECT_SOURCE_DIR}/.venv/lib/python3*/site-packages)
  foreach(candidate IN LISTS candidates)
    if(EXISTS ${candidate}/torch/lib/libtorch_cpu.so)
      set(CRUMB_TORCH_ROOT ${candidate} CACHE PATH "folder that holds torch/" FORCE)
    endif()
  endforeach()
endif()
if(NOT EXISTS ${CRUMB_TORCH_ROOT}/torch/lib/libtorch_cpu.so)
  message(FATAL_ERROR "no LibTorch in CRUMB_TORCH_ROOT='${CRUMB_TORCH_ROOT}': run scripts/setup.sh, or configure with -DCRUMB_TORCH=OFF")
endif()

set(torch_lib ${CRUMB_TORCH_ROOT}/torch/lib)
add_library(crumb_torch INTERFACE)
target_include_directories(crumb_torch SYSTEM INTERFACE
  ${CRUMB_TORCH_ROOT}/torch/include ${CRUMB_TORCH_ROOT}/torch/include/torch/csrc/api/include)
# The wheel carries headers of a newer fmt, without its library, and they would come before the system's: one program, one fmt.
get_target_property(fmt_include fmt::fmt INTERFACE_INCLUDE_DIRECTORIES)
file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/fmt_of_the_system)
file(CREATE_LINK ${fmt_include}/fmt ${PROJECT_BINARY_DIR}/fmt_of_the_system/fmt SYMBOLIC)
target_include_directories(crumb_torch BEFORE INTERFACE ${PROJECT_BINARY_DIR}/fmt_of_the_system)
target_link_libraries(crumb_torch INTERFACE fmt::fmt)
target_link_libraries(crumb_torch INTERFACE
  ${torch_lib}/libc10.so ${torch_lib}/libtorch_cpu.so Threads::Threads)
target_link_options(crumb_torch INTERFACE
  LINKER:-rpath,${torch_lib} LINKER:-rpath,${CRUMB_TORCH_ROOT}/nvidia/cu13/lib LINKER:--allow-shlib-undefined)

# The CPU environment of scripts/setup.sh has libtorch_cuda.so too, but not what it needs: cuBLAS tells the full one.
file(GLOB cublas ${CRUMB_TORCH_ROOT}/nvidia/cu13/lib/libcublas.so*)
if(CRUMB_CUDA STREQUAL "ON" AND NOT cublas)
  message(FATAL_ERROR "no CUDA libraries beside LibTorch in ${CRUMB_TORCH_ROOT}: run scripts/setup.sh --cuda")
endif()
if(cublas AND NOT CRUMB_CUDA STREQUAL "OFF")
  # Nothing of ours names a symbol of libtorch_cuda: without --no-as-needed the linker would drop it and no GPU would be seen.
  target_link_options(crumb_torch INTERFACE LINKER:--no-as-needed ${torch_lib}/libtorch_cuda.so ${torch_lib}/libc10_cuda.so LINKER:--as-needed)
endif()
