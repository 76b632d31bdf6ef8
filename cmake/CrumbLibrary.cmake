# One function for every library, one for every test binary.
#
#   crumb_add_library(NAME crumb_formats
#     SOURCES gguf.cpp safetensors.cpp
#     DEPENDS crumb_common             # libraries of ours whose headers ours include
#     PRIVATE PkgConfig::ONIGURUMA     # libraries used only in .cpp files
#     [TORCH])                         # may include Torch; everything else is proved free of it
#
#   crumb_add_test(NAME formats_tests SOURCES gguf_test.cpp DEPENDS crumb_formats [TORCH])

# The x86 baseline of all code is x86-64-v3 (AVX2, FMA, F16C); wider instruction sets only in files of their own.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(CRUMB_ARCH_FLAGS -march=x86-64-v3)
endif()

function(crumb_compile_options target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Werror ${CRUMB_ARCH_FLAGS})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    target_compile_options(${target} PRIVATE -Wno-restrict)   # false alarms inside std::string (GCC bug 105651)
  endif()
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR})
  if(CRUMB_SANITIZE)
    target_compile_options(${target} PUBLIC -fsanitize=${CRUMB_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    # v[i] beyond the end of a vector is found too. Compilers have no common macro that says "sanitized".
    target_compile_definitions(${target} PUBLIC _GLIBCXX_ASSERTIONS CRUMB_SANITIZED)
    target_link_options(${target} PUBLIC -fsanitize=${CRUMB_SANITIZE})
  endif()
  if(CRUMB_FUZZ)
    target_compile_options(${target} PUBLIC -fsanitize=fuzzer-no-link)   # counts the branches that an input takes
  endif()
endfunction()

# Fails with the path "a -> b -> crumb_torch" when a target that must be free of Torch reaches it.
function(crumb_check_no_torch target path)
  get_target_property(links ${target} LINK_LIBRARIES)
  foreach(link IN LISTS links)
    if(link STREQUAL "crumb_torch")
      message(FATAL_ERROR "${path} -> ${link}: this library must build without LibTorch")
    elseif(link MATCHES "^crumb_" AND TARGET ${link})
      crumb_check_no_torch(${link} "${path} -> ${link}")
    endif()
  endforeach()
endfunction()

# The first target that asks for it owns the precompiled Torch header; the others reuse it.
function(crumb_use_torch_pch target)
  target_compile_options(${target} PRIVATE -fPIC)   # programs are -fPIE otherwise and could not share the header of the libraries
  get_property(owner GLOBAL PROPERTY CRUMB_TORCH_PCH_OWNER)
  if(owner)
    target_precompile_headers(${target} REUSE_FROM ${owner})
  else()
    target_precompile_headers(${target} PRIVATE <torch/torch.h>)
    set_property(GLOBAL PROPERTY CRUMB_TORCH_PCH_OWNER ${target})
  endif()
endfunction()

function(crumb_add_library)
  cmake_parse_arguments(ARG "TORCH;NO_PCH" "NAME" "SOURCES;DEPENDS;PRIVATE" ${ARGN})
  add_library(${ARG_NAME} STATIC ${ARG_SOURCES})
  crumb_compile_options(${ARG_NAME})
  target_link_libraries(${ARG_NAME} PUBLIC ${ARG_DEPENDS} PRIVATE ${ARG_PRIVATE})
  if(ARG_TORCH)
    target_link_libraries(${ARG_NAME} PUBLIC crumb_torch)
    if(NOT ARG_NO_PCH)
      crumb_use_torch_pch(${ARG_NAME})
    endif()
  else()
    crumb_check_no_torch(${ARG_NAME} ${ARG_NAME})
  endif()
endfunction()

function(crumb_add_test)
  cmake_parse_arguments(ARG "TORCH" "NAME" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${ARG_NAME} ${ARG_SOURCES})
  crumb_compile_options(${ARG_NAME})
  target_link_libraries(${ARG_NAME} PRIVATE ${ARG_DEPENDS} crumb_testing GTest::gmock GTest::gtest GTest::gtest_main)
  if(ARG_TORCH)
    target_link_libraries(${ARG_NAME} PRIVATE crumb_torch)
    crumb_use_torch_pch(${ARG_NAME})
  endif()
  # One ctest entry a binary; scripts/test.sh counts what was skipped.
  add_test(NAME ${ARG_NAME} COMMAND ${ARG_NAME} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${ARG_NAME} PROPERTIES TIMEOUT 1800)
endfunction()
