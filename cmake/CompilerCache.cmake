# Uses ccache where it is installed. Precompiled headers need the two settings below, or every lookup misses.
find_program(HEMOSTAT_CCACHE ccache)
mark_as_advanced(HEMOSTAT_CCACHE)
if(HEMOSTAT_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
    CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${HEMOSTAT_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${HEMOSTAT_CCACHE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
  elseif(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:SHELL:-Xclang -fno-pch-timestamp>")
  endif()
endif()
