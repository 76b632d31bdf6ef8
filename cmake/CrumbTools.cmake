# Compiler cache and linker, used when the machine has them.
find_program(CRUMB_CCACHE ccache)
if(CRUMB_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # Precompiled headers need these; without them ccache calls every file that uses one uncacheable.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${CRUMB_CCACHE})
endif()

find_program(CRUMB_MOLD mold)
if(CRUMB_MOLD AND NOT CMAKE_CROSSCOMPILING)   # cross compilers do not find it
  add_link_options(-fuse-ld=mold)
endif()
