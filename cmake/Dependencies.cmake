# The libraries that Debian packages; scripts/setup installs them.

find_package(Threads REQUIRED)
find_package(OpenSSL REQUIRED)  # OpenSSL::Crypto: SHA-256
find_package(Protobuf REQUIRED)
find_package(absl CONFIG REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(Boost CONFIG REQUIRED)  # Asio and Beast, which are headers: HTTP
find_package(CLI11 CONFIG REQUIRED)
find_package(spdlog CONFIG REQUIRED)
find_package(nlohmann_json CONFIG REQUIRED)  # A weights file's header, audit records, backbonectl
find_package(SQLite3 REQUIRED)  # The usage log
find_package(yaml-cpp CONFIG REQUIRED)  # The users file, connection files

# Metrics. The CMake package asks for curl and civetweb, which the core does not need.
# Debian has no archive of it: wheel and image carry the shared library.
find_library(BACKBONED_PROMETHEUS prometheus-cpp-core REQUIRED)
add_library(prometheus-cpp::core SHARED IMPORTED)
set_target_properties(prometheus-cpp::core PROPERTIES
  IMPORTED_LOCATION "${BACKBONED_PROMETHEUS}")

if(BACKBONED_TESTS)
  find_package(GTest CONFIG REQUIRED)
  include(GoogleTest)
endif()

if(BACKBONED_BENCHMARKS)
  find_package(benchmark CONFIG QUIET)
endif()

if(BACKBONED_SANITIZE STREQUAL "thread")
  add_library(backboned_tsan_abseil OBJECT "${CMAKE_CURRENT_LIST_DIR}/tsan_abseil.cc")
  target_link_libraries(backboned_tsan_abseil PRIVATE absl::synchronization)
endif()
