# Finds the LibTorch inside a torch wheel (or an unpacked libtorch archive) and links its libraries by path.
# The wheel's own TorchConfig.cmake is not used: with a CUDA wheel it demands a CUDA toolkit, which a program that
# only links LibTorch does not need. Installed beside hemostatConfig.cmake, which finds LibTorch the same way.
#
#   hemostat_find_torch([VERSION X.Y] [CANDIDATES dir…])
#
# looks at HEMOSTAT_TORCH_DIR if set, else at each candidate, else asks the Python interpreter, and defines
#   hemostat::torch         headers, libtorch, libtorch_cpu, libc10
#   hemostat::torch_cuda    libc10_cuda and libtorch_cuda, where the wheel has them
#   hemostat::torch_python  libtorch_python, where it is there
#   HEMOSTAT_TORCH_DIR, HEMOSTAT_TORCH_VERSION (X.Y.Z)
# VERSION: anything but this X.Y is passed over, and an error where nothing else is found.

set(HEMOSTAT_TORCH_MINIMUM 2.11)

# Sets `result` to the version of the LibTorch in `directory`, or to the empty string.
function(_hemostat_torch_version directory result)
  set(${result} "" PARENT_SCOPE)
  if(NOT EXISTS "${directory}/lib/libtorch_cpu.so")
    return()
  endif()
  foreach(header torch/headeronly/version.h torch/csrc/api/include/torch/version.h)
    set(header "${directory}/include/${header}")
    if(EXISTS "${header}")
      file(STRINGS "${header}" lines REGEX "#define TORCH_VERSION_(MAJOR|MINOR|PATCH) [0-9]+")
      if(lines)
        string(REGEX MATCHALL "[0-9]+" numbers "${lines}")
        list(JOIN numbers "." version)
        set(${result} ${version} PARENT_SCOPE)
        return()
      endif()
    endif()
  endforeach()
endfunction()

# Sets `result` to the directory of the torch package that the Python interpreter would import, or to the empty string.
function(_hemostat_ask_python result)
  set(${result} "" PARENT_SCOPE)
  if(NOT Python3_EXECUTABLE)
    set(Python3_FIND_VIRTUALENV FIRST)
    find_package(Python3 COMPONENTS Interpreter QUIET)
  endif()
  if(Python3_EXECUTABLE)
    execute_process(
      COMMAND ${Python3_EXECUTABLE} -c
        "import importlib.util; print(importlib.util.find_spec('torch').submodule_search_locations[0])"
      OUTPUT_VARIABLE directory RESULT_VARIABLE status ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
    if(status EQUAL 0)
      set(${result} "${directory}" PARENT_SCOPE)
    endif()
  endif()
endfunction()

macro(_hemostat_torch_library target name)
  if(EXISTS "${HEMOSTAT_TORCH_DIR}/lib/lib${name}.so" AND NOT TARGET ${target})
    add_library(${target} SHARED IMPORTED GLOBAL)
    set_target_properties(${target} PROPERTIES IMPORTED_LOCATION "${HEMOSTAT_TORCH_DIR}/lib/lib${name}.so")
  endif()
endmacro()

function(hemostat_find_torch)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "VERSION" "CANDIDATES")
  if(TARGET hemostat::torch)
    return()
  endif()

  set(found "")
  set(rejected "")
  if(HEMOSTAT_TORCH_DIR)
    set(candidates "${HEMOSTAT_TORCH_DIR}")
  else()
    set(candidates ${arg_CANDIDATES} PYTHON)
  endif()
  foreach(candidate IN LISTS candidates)
    if(candidate STREQUAL "PYTHON")
      _hemostat_ask_python(candidate)
    endif()
    _hemostat_torch_version("${candidate}" version)
    if(NOT version)
      continue()
    endif()
    string(REGEX MATCH "^[0-9]+\\.[0-9]+" minor ${version})
    if(arg_VERSION AND NOT minor VERSION_EQUAL arg_VERSION)
      string(APPEND rejected "\n  torch ${version} in ${candidate}")
    elseif(version VERSION_LESS HEMOSTAT_TORCH_MINIMUM)
      string(APPEND rejected "\n  torch ${version} in ${candidate}")
    else()
      get_filename_component(found "${candidate}" REALPATH)
      break()
    endif()
  endforeach()

  if(NOT found)
    if(arg_VERSION)
      set(wanted "torch ${arg_VERSION}, the version that this hemostat was built with,")
      set(install "pip install 'torch==${arg_VERSION}.*'")
    else()
      set(wanted "torch >= ${HEMOSTAT_TORCH_MINIMUM}")
      set(install "pip install 'torch>=${HEMOSTAT_TORCH_MINIMUM}'")
    endif()
    if(rejected)
      set(rejected "\nNot usable:${rejected}")
    endif()
    message(FATAL_ERROR "hemostat: ${wanted} was not found.${rejected}\n"
      "Install it where the Python interpreter (${Python3_EXECUTABLE}) sees it:\n  ${install}\n"
      "or name its directory, which holds include/ and lib/:\n  -DHEMOSTAT_TORCH_DIR=…/site-packages/torch")
  endif()

  set(HEMOSTAT_TORCH_DIR "${found}")
  set(HEMOSTAT_TORCH_DIR "${found}" PARENT_SCOPE)
  set(HEMOSTAT_TORCH_VERSION "${version}" PARENT_SCOPE)
  message(STATUS "hemostat: torch ${version} in ${found}")

  _hemostat_torch_library(hemostat::libtorch torch)
  _hemostat_torch_library(hemostat::libtorch_cpu torch_cpu)
  _hemostat_torch_library(hemostat::libc10 c10)
  _hemostat_torch_library(hemostat::libtorch_cuda torch_cuda)
  _hemostat_torch_library(hemostat::libc10_cuda c10_cuda)
  _hemostat_torch_library(hemostat::torch_python torch_python)

  add_library(hemostat::torch INTERFACE IMPORTED GLOBAL)
  # System headers, and before /usr/include: the fmt that torch bundles is the one used.
  target_include_directories(hemostat::torch SYSTEM INTERFACE "${found}/include")
  target_compile_definitions(hemostat::torch INTERFACE _GLIBCXX_USE_CXX11_ABI=1)
  target_compile_features(hemostat::torch INTERFACE cxx_std_20)
  target_link_libraries(hemostat::torch INTERFACE hemostat::libtorch hemostat::libtorch_cpu hemostat::libc10)
  if(TARGET hemostat::libc10_cuda)
    add_library(hemostat::torch_cuda INTERFACE IMPORTED GLOBAL)
    target_link_libraries(hemostat::torch_cuda INTERFACE hemostat::libtorch_cuda hemostat::libc10_cuda)
  endif()
endfunction()
