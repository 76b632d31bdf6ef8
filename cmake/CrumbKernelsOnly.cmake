# What kernels/ and its tests use of other projects, without a binary of theirs: Debian has none of a foreign processor that could be
# installed beside this one's, but its compilers find the headers, and googletest is there as source.
add_library(fmt::fmt INTERFACE IMPORTED)
target_compile_definitions(fmt::fmt INTERFACE FMT_HEADER_ONLY)
add_library(nlohmann_json::nlohmann_json INTERFACE IMPORTED)
add_library(yaml-cpp INTERFACE IMPORTED)   # no kernel needs an object that calls it
set(CRUMB_GOOGLETEST /usr/src/googletest CACHE PATH "sources of googletest")
add_subdirectory(${CRUMB_GOOGLETEST} ${PROJECT_BINARY_DIR}/googletest EXCLUDE_FROM_ALL)
