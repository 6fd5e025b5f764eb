# What every target of this project is compiled with. One list, because a precompiled header can only be reused
# by a target that is compiled with the same flags.
add_library(hemostat_options INTERFACE)
target_compile_options(hemostat_options INTERFACE -fPIC -Wall -Wextra)
target_compile_definitions(hemostat_options INTERFACE FMT_HEADER_ONLY)
target_link_libraries(hemostat_options INTERFACE hemostat::torch)

# Without OpenMP at::parallel_for is compiled into a loop on one thread. The wheel brings its own copy of GCC's runtime;
# linking that one, under whatever name it has, leaves one pool of threads in the process.
file(GLOB torch_gomp ${HEMOSTAT_TORCH_DIR}/lib/libgomp*.so*)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND torch_gomp)
  target_compile_options(hemostat_options INTERFACE -fopenmp)
  target_link_libraries(hemostat_options INTERFACE ${torch_gomp})
else()
  find_package(OpenMP REQUIRED COMPONENTS CXX)
  target_link_libraries(hemostat_options INTERFACE OpenMP::OpenMP_CXX)
endif()

if(HEMOSTAT_WARNINGS_AS_ERRORS)
  target_compile_options(hemostat_options INTERFACE -Werror)
endif()
set(HEMOSTAT_SANITIZE_OPTIONS "")
if(HEMOSTAT_SANITIZE)
  set(HEMOSTAT_SANITIZE_OPTIONS
    -fsanitize=${HEMOSTAT_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_compile_options(hemostat_options INTERFACE ${HEMOSTAT_SANITIZE_OPTIONS})
  target_link_options(hemostat_options INTERFACE -fsanitize=${HEMOSTAT_SANITIZE})
endif()
