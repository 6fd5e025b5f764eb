# Installs headers, library and CMake package under one prefix. The wheel holds the same tree inside the Python
# package (hemostat/include, hemostat/lib), so that find_package(hemostat) works from there too.
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/hemostat)

install(TARGETS hemostat EXPORT hemostatTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY cpp/include/hemostat DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(EXPORT hemostatTargets NAMESPACE hemostat:: DESTINATION ${package_dir})

string(REGEX MATCH "^[0-9]+\\.[0-9]+" HEMOSTAT_TORCH_MINOR ${HEMOSTAT_TORCH_VERSION})
if(SKBUILD)
  set(HEMOSTAT_TORCH_BUILT_WITH "")  # a wheel finds the torch installed beside it
else()
  set(HEMOSTAT_TORCH_BUILT_WITH ${HEMOSTAT_TORCH_DIR})
endif()
configure_package_config_file(cmake/hemostatConfig.cmake.in ${PROJECT_BINARY_DIR}/hemostatConfig.cmake
  INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/hemostatConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/hemostatConfig.cmake ${PROJECT_BINARY_DIR}/hemostatConfigVersion.cmake
  cmake/TorchWheel.cmake DESTINATION ${package_dir})
