# hemostat_simd_kernels(<target> <source>…): compiles each source once per instruction set, with HEMOSTAT_ISA defined
# as the namespace of that copy. Sources include no Torch header: an inline function of one, compiled for AVX-512,
# could be the copy that the linker keeps for everybody. -ffp-contract=off: every copy rounds alike.
# -mno-mmx: GCC 12 moves halves of vectors through MMX registers, which leaves the x87 unit, that long double and some
# LAPACK kernels use, giving NaN.
# -Wno-psabi: vectors wider than a set's registers are passed between inlined functions only.
function(hemostat_simd_kernels target)
  if(NOT ARGN)
    return()
  endif()
  set(instruction_sets baseline)
  set(flags_baseline "")
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    list(APPEND instruction_sets avx2 avx512)
    set(flags_baseline -mno-mmx)
    target_compile_definitions(hemostat_options INTERFACE HEMOSTAT_HAVE_AVX2 HEMOSTAT_HAVE_AVX512)
  endif()
  set(flags_avx2 -march=x86-64-v3 -mno-mmx)
  set(flags_avx512 -march=x86-64-v4 -mprefer-vector-width=512 -mno-mmx)

  foreach(instruction_set IN LISTS instruction_sets)
    set(objects ${target}_${instruction_set})
    add_library(${objects} OBJECT ${ARGN})
    target_include_directories(${objects} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
    target_compile_definitions(${objects} PRIVATE HEMOSTAT_ISA=${instruction_set})
    target_compile_options(${objects} PRIVATE -fPIC -Wall -Wextra -O3 -fno-math-errno -fno-trapping-math
      -ffp-contract=off -fopenmp-simd -Wno-psabi ${flags_${instruction_set}} ${HEMOSTAT_SANITIZE_OPTIONS})
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${objects}>)
  endforeach()
endfunction()

# hemostat_cuda_kernels(<target> <source>…): the kernels for CUDA, free of Torch headers too, with a static runtime
# so that the library does not depend on the toolkit that compiled it.
function(hemostat_cuda_kernels target)
  if(NOT ARGN)
    return()
  endif()
  set(objects ${target}_cuda)
  add_library(${objects} OBJECT ${ARGN})
  target_include_directories(${objects} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  target_compile_options(${objects} PRIVATE --expt-relaxed-constexpr --extended-lambda)
  set_target_properties(${objects} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:${objects}>)
endfunction()
