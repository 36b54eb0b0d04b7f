# The CUDA backend: one shared library of ours, opened at start (device/cuda_backend.h), so that the program itself needs
# no CUDA library. Every file in a folder named cuda under src/ belongs to it: .cc for g++, .cu for nvcc.
#
# OCTAVO_CUDA=ON builds it and needs OCTAVO_CUDA_ROOT and OCTAVO_CUDNN_ROOT (tools/cuda_options prints all four);
# AUTO builds it when both are given; OFF never. Sets OCTAVO_HAVE_CUDA.
set(OCTAVO_HAVE_CUDA OFF)
set(OCTAVO_CUDA_ROOT "" CACHE PATH "Root of a CUDA 13 toolkit: bin/nvcc, include, lib64")
set(OCTAVO_CUDNN_ROOT "" CACHE PATH "Root of cuDNN 9: include, lib")
set(OCTAVO_CUDA_ARCHITECTURES "90a" CACHE STRING "GPU architectures to compile for: 80;89;90a")
if(NOT OCTAVO_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "OCTAVO_CUDA must be AUTO, ON or OFF, not '${OCTAVO_CUDA}'")
endif()
if(OCTAVO_CUDA STREQUAL "ON" AND NOT (OCTAVO_CUDA_ROOT AND OCTAVO_CUDNN_ROOT))
  message(FATAL_ERROR "OCTAVO_CUDA=ON needs OCTAVO_CUDA_ROOT and OCTAVO_CUDNN_ROOT: cmake --preset release $(OCTAVO_CUDA=ON tools/cuda_options)")
endif()
if(NOT OCTAVO_CUDA STREQUAL "OFF" AND OCTAVO_CUDA_ROOT AND OCTAVO_CUDNN_ROOT)
  # Hopper's own instructions need the architecture's name with an a.
  string(REGEX REPLACE "(^|;)90(;|$)" "\\190a\\2" OCTAVO_CUDA_ARCHITECTURES "${OCTAVO_CUDA_ARCHITECTURES}")
  # What was found in another toolkit must not be mixed with this one.
  if(NOT "${OCTAVO_CUDA_ROOT}|${OCTAVO_CUDNN_ROOT}" STREQUAL "${OCTAVO_CUDA_ROOTS_BEFORE}")
    unset(OCTAVO_CUBLASLT_LIBRARY CACHE)
    unset(OCTAVO_CUDART_LIBRARY CACHE)
    unset(OCTAVO_CUDNN_LIBRARY CACHE)
    set(OCTAVO_CUDA_ROOTS_BEFORE "${OCTAVO_CUDA_ROOT}|${OCTAVO_CUDNN_ROOT}" CACHE INTERNAL "roots of the last configuration")
  endif()
  set(CMAKE_CUDA_COMPILER "${OCTAVO_CUDA_ROOT}/bin/nvcc")
  set(CMAKE_CUDA_ARCHITECTURES "${OCTAVO_CUDA_ARCHITECTURES}")
  if(CCACHE_PROGRAM)
    set(CMAKE_CUDA_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
  endif()
  enable_language(CUDA)
  # CMake 3.25 does not know that this nvcc has C++20.
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_EXTENSIONS OFF)
  find_library(OCTAVO_CUBLASLT_LIBRARY NAMES cublasLt libcublasLt.so.13
               PATHS "${OCTAVO_CUDA_ROOT}/lib64" "${OCTAVO_CUDA_ROOT}/lib" NO_DEFAULT_PATH REQUIRED)
  find_library(OCTAVO_CUDART_LIBRARY NAMES libcudart_static.a
               PATHS "${OCTAVO_CUDA_ROOT}/lib64" "${OCTAVO_CUDA_ROOT}/lib" NO_DEFAULT_PATH REQUIRED)
  find_library(OCTAVO_CUDNN_LIBRARY NAMES cudnn libcudnn.so.9
               PATHS "${OCTAVO_CUDNN_ROOT}/lib64" "${OCTAVO_CUDNN_ROOT}/lib" "${OCTAVO_CUDNN_ROOT}/lib/x86_64-linux-gnu"
               NO_DEFAULT_PATH REQUIRED)
  set(OCTAVO_HAVE_CUDA ON)
  message(STATUS "CUDA backend: ${CMAKE_CUDA_COMPILER_VERSION} for ${OCTAVO_CUDA_ARCHITECTURES}, ${OCTAVO_CUDNN_LIBRARY}")
endif()

# Program and library share types: each carries a hash of every header between them, and a library of another build is not
# opened. Configured anew when one of the headers changes.
file(GLOB_RECURSE shared_headers CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/src/base/*.h" "${CMAKE_SOURCE_DIR}/src/tensor/*.h"
     "${CMAKE_SOURCE_DIR}/src/device/*.h" "${CMAKE_SOURCE_DIR}/src/ops/*.h")
list(SORT shared_headers)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${shared_headers})
set(hashes "")
foreach(header IN LISTS shared_headers)
  file(SHA256 "${header}" hash)
  string(APPEND hashes "${hash}")
endforeach()
string(SHA256 OCTAVO_CUDA_BUILD "${hashes}")
if(NOT OCTAVO_HAVE_CUDA)
  file(REMOVE "${CMAKE_BINARY_DIR}/liboctavo_cuda.so")  # of an earlier configuration
endif()

# An executable that opens the backend: it exports its symbols, and has all of the folders whose code the backend calls,
# used by the executable or not.
function(octavo_opens_cuda_backend target)
  set_target_properties(${target} PROPERTIES ENABLE_EXPORTS ON RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}")
  if(OCTAVO_HAVE_CUDA)
    set(whole "")
    foreach(folder IN ITEMS base tensor device ops)
      list(APPEND whole "$<TARGET_FILE:octavo_${folder}>")
    endforeach()
    target_link_libraries(${target} PRIVATE -Wl,--whole-archive ${whole} -Wl,--no-whole-archive)
    add_dependencies(${target} octavo_base octavo_tensor octavo_device octavo_ops octavo_cuda)
  endif()
endfunction()

# Called once, after every folder of src/ has its library.
function(octavo_cuda_backend)
  file(GLOB_RECURSE all CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/src/*.cc" "${CMAKE_SOURCE_DIR}/src/*.cu")
  list(FILTER all INCLUDE REGEX "/cuda/[^/]+$")
  set(sources ${all})
  set(tests ${all})
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")

  add_library(octavo_cuda SHARED ${sources})
  set_source_files_properties("${CMAKE_SOURCE_DIR}/src/ops/cuda/backend_entry.cc" PROPERTIES
    COMPILE_DEFINITIONS "OCTAVO_CUDA_BUILD=\"${OCTAVO_CUDA_BUILD}\"")
  target_include_directories(octavo_cuda PRIVATE "${CMAKE_SOURCE_DIR}/src")
  target_include_directories(octavo_cuda SYSTEM PRIVATE
    "${OCTAVO_CUDA_ROOT}/include" "${OCTAVO_CUDNN_ROOT}/include" ${Boost_INCLUDE_DIRS})
  if("90a" IN_LIST OCTAVO_CUDA_ARCHITECTURES)
    target_compile_definitions(octavo_cuda PRIVATE OCTAVO_HAVE_SM90A)
  endif()
  target_compile_options(octavo_cuda PRIVATE
    "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wshadow;-Werror;-Wno-missing-field-initializers;-ffp-contract=off;-fopenmp>"
    # nvcc takes fmt 9's compile-time checks of format strings for errors.
    "$<$<COMPILE_LANGUAGE:CUDA>:-DFMT_CONSTEVAL=;-DFMT_USE_CONSTEXPR=1;-O3;--expt-relaxed-constexpr;-lineinfo;-Werror=cross-execution-space-call;-Xcompiler=-Wall>")
  # The program's own symbols (op tables, Status) stay undefined here: the executable that opens this library has them.
  target_link_libraries(octavo_cuda PRIVATE
    fmt::fmt spdlog::spdlog "${OCTAVO_CUDART_LIBRARY}" "${OCTAVO_CUBLASLT_LIBRARY}" "${OCTAVO_CUDNN_LIBRARY}"
    gomp Threads::Threads ${CMAKE_DL_LIBS} rt)
  get_filename_component(cublas_folder "${OCTAVO_CUBLASLT_LIBRARY}" DIRECTORY)
  get_filename_component(cudnn_folder "${OCTAVO_CUDNN_LIBRARY}" DIRECTORY)
  set_target_properties(octavo_cuda PROPERTIES
    LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}" CUDA_RUNTIME_LIBRARY None
    BUILD_RPATH "${cublas_folder};${cudnn_folder}")

  if(OCTAVO_TESTS AND tests)
    add_executable(octavo_cuda_test ${tests})
    octavo_opens_cuda_backend(octavo_cuda_test)
    target_link_libraries(octavo_cuda_test PRIVATE octavo_pipeline octavo_testing GTest::gmock GTest::gtest_main)
    target_compile_definitions(octavo_cuda_test PRIVATE OCTAVO_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    add_test(NAME cuda COMMAND octavo_cuda_test)
    set_tests_properties(cuda PROPERTIES LABELS cuda ENVIRONMENT "${OCTAVO_TEST_ENVIRONMENT}")
  endif()
endfunction()
