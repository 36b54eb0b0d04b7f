# One function makes a folder's library, its unit tests and its benchmarks.
#
#   octavo_library(<folder> [DEPS <folder>...] [EXTERNAL <target>...] [TEST_DEPS <folder>...])
#
# Sources are all .cc under the folder; x_test.cc and x_bench.cc go to the test and the benchmark
# executables (octavo_<folder>_test, octavo_<folder>_bench). A library sees only the folders in DEPS,
# so an include across a forbidden arrow fails to link; tools/check_layers names it by line.
add_library(octavo_options INTERFACE)
target_include_directories(octavo_options INTERFACE "${CMAKE_SOURCE_DIR}/src")
target_compile_options(octavo_options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Werror
  -Wno-missing-field-initializers   # op({.x = x, .out = out}): every argument of an op has a default
  -ffp-contract=off)   # a*b+c is fused only where the source says so: results do not depend on the compiler's mood
if(CMAKE_CXX_COMPILER_ID MATCHES "GNU")
  # gcc 12 misreads std::variant and std::string moves at -O2 (gcc bugs 105562, 105651).
  target_compile_options(octavo_options INTERFACE -Wno-maybe-uninitialized -Wno-restrict)
endif()
if(OCTAVO_SANITIZE)
  target_compile_options(octavo_options INTERFACE -fsanitize=${OCTAVO_SANITIZE} -fno-omit-frame-pointer)
  if(OCTAVO_SANITIZE MATCHES "undefined")
    target_compile_options(octavo_options INTERFACE -fno-sanitize-recover=undefined)
  endif()
  target_link_options(octavo_options INTERFACE -fsanitize=${OCTAVO_SANITIZE})
endif()

if(OCTAVO_TESTS)
  # As limit_idle_spinning() does for the program: several tests run at once, and a spinning thread takes their core.
  set(OCTAVO_TEST_ENVIRONMENT "GOMP_SPINCOUNT=2000")
  add_custom_target(unit_tests)  # every octavo_<folder>_test; what the sanitizer builds need
endif()

function(octavo_library folder)
  cmake_parse_arguments(ARG "" "" "DEPS;EXTERNAL;TEST_DEPS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/*.cc")
  list(FILTER sources EXCLUDE REGEX "/cuda/")  # the CUDA backend's (OctavoCuda.cmake)
  set(tests ${sources})
  set(benches ${sources})
  list(FILTER sources EXCLUDE REGEX "_(test|bench)\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(FILTER benches INCLUDE REGEX "_bench\\.cc$")

  set(kind PUBLIC)
  if(sources)
    add_library(octavo_${folder} STATIC ${sources})
  else()
    add_library(octavo_${folder} INTERFACE)
    set(kind INTERFACE)
  endif()
  add_library(octavo::${folder} ALIAS octavo_${folder})
  target_link_libraries(octavo_${folder} ${kind} octavo_options ${ARG_EXTERNAL})
  foreach(dep IN LISTS ARG_DEPS)
    target_link_libraries(octavo_${folder} ${kind} octavo_${dep})
  endforeach()

  if(OCTAVO_TESTS AND tests)
    add_executable(octavo_${folder}_test ${tests})
    target_link_libraries(octavo_${folder}_test PRIVATE octavo_${folder} GTest::gmock GTest::gtest_main)
    foreach(dep IN LISTS ARG_TEST_DEPS)
      target_link_libraries(octavo_${folder}_test PRIVATE octavo_${dep})
    endforeach()
    target_compile_definitions(octavo_${folder}_test PRIVATE OCTAVO_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    add_dependencies(unit_tests octavo_${folder}_test)
    add_test(NAME unit_${folder} COMMAND octavo_${folder}_test)
    set_tests_properties(unit_${folder} PROPERTIES LABELS unit ENVIRONMENT "${OCTAVO_TEST_ENVIRONMENT}")
  endif()
  if(OCTAVO_BENCHMARKS AND benches)
    add_executable(octavo_${folder}_bench ${benches})
    target_link_libraries(octavo_${folder}_bench PRIVATE octavo_${folder} benchmark::benchmark benchmark::benchmark_main)
  endif()
endfunction()
