# Every external library, found once, by the name of its Debian 12 package.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)                # libfmt-dev
find_package(spdlog REQUIRED)             # libspdlog-dev
find_package(PkgConfig REQUIRED)          # pkg-config
find_package(Boost 1.81 REQUIRED)         # libboost1.81-dev (headers)
find_package(dnnl REQUIRED)               # libdnnl-dev
pkg_check_modules(HWY REQUIRED IMPORTED_TARGET libhwy)                   # libhwy-dev
pkg_check_modules(SENTENCEPIECE REQUIRED IMPORTED_TARGET sentencepiece)  # libsentencepiece-dev
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)         # libutf8proc-dev
find_package(PNG REQUIRED)                # libpng-dev
find_package(ZLIB REQUIRED)               # zlib1g-dev
find_package(JPEG REQUIRED)               # libjpeg62-turbo-dev
pkg_check_modules(WEBP REQUIRED IMPORTED_TARGET libwebp libwebpdemux libwebpmux)  # libwebp-dev
find_package(CLI11 REQUIRED)              # libcli11-dev
find_package(OpenSSL REQUIRED COMPONENTS Crypto)  # libssl-dev
find_package(prometheus-cpp REQUIRED CONFIG COMPONENTS core)  # prometheus-cpp-dev
if(OCTAVO_TESTS)
  find_package(GTest REQUIRED)            # libgtest-dev libgmock-dev
endif()
if(OCTAVO_BENCHMARKS)
  find_package(benchmark REQUIRED)        # libbenchmark-dev
endif()

# Boost.JSON is header-only here: its code is compiled once, and everyone who parses JSON links this target.
file(WRITE "${CMAKE_BINARY_DIR}/generated/boost_json.cc" "#include <boost/json/src.hpp>\n")
add_library(octavo_boost_json STATIC "${CMAKE_BINARY_DIR}/generated/boost_json.cc")
target_link_libraries(octavo_boost_json PUBLIC Boost::headers)
