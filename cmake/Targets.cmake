# How the folders declare what they build. Sources are named from the calling
# folder, includes from the repository's root: "server/scheduler/scheduler.h".

# backboned_library(NAME <name> SOURCES <file>... [HEADERS <file>...] [DEPS <target>...])
#
# Makes the static library backboned::<name>. What it links, its users link.
function(backboned_library)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME" "SOURCES;HEADERS;DEPS")
  set(target backboned_${arg_NAME})
  add_library(${target} STATIC ${arg_SOURCES} ${arg_HEADERS})
  add_library(backboned::${arg_NAME} ALIAS ${target})
  _backboned_link(${target} ${arg_DEPS})
endfunction()

# backboned_executable(NAME <name> [OPTIONAL] SOURCES <file>... [DEPS <target>...])
#
# Makes the program <name> at the top of the build folder. Installed, it finds
# its libraries in ../lib, or beside the package that the wheel puts it into. An
# optional one is installed if it was built.
function(backboned_executable)
  cmake_parse_arguments(PARSE_ARGV 0 arg "OPTIONAL" "NAME" "SOURCES;DEPS")
  add_executable(${arg_NAME} ${arg_SOURCES})
  _backboned_link(${arg_NAME} ${arg_DEPS})
  set_target_properties(${arg_NAME} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}"
    INSTALL_RPATH "$ORIGIN/../lib;$ORIGIN/../../torch/lib")
  set(optional "")
  if(arg_OPTIONAL)
    set(optional OPTIONAL)
  endif()
  install(TARGETS ${arg_NAME} COMPONENT server ${optional})
endfunction()

# backboned_test(NAME <name> SOURCES <file>... [DEPS <target>...])
#
# Makes a GoogleTest program that runs in the repository's root. Each of its cases is a
# test of ctest; under a sanitizer, whose start takes seconds, the program is one.
function(backboned_test)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME" "SOURCES;DEPS")
  add_executable(${arg_NAME} ${arg_SOURCES})
  _backboned_link(${arg_NAME} ${arg_DEPS} GTest::gmock GTest::gmock_main GTest::gtest)
  # Wrong about a std::vector that grows in GCC 12, where a batch inlines enough.
  target_compile_options(${arg_NAME} PRIVATE
    $<$<CXX_COMPILER_ID:GNU>:-Wno-array-bounds>)
  # Spinning OpenMP threads starve tests that run beside each other.
  set(environment ENVIRONMENT OMP_WAIT_POLICY=PASSIVE)
  if(BACKBONED_SANITIZE)
    add_test(NAME ${arg_NAME} COMMAND ${arg_NAME}
      WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
    set_tests_properties(${arg_NAME} PROPERTIES TIMEOUT 3600 ${environment})
  else()
    gtest_discover_tests(${arg_NAME}
      WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}"
      DISCOVERY_MODE PRE_TEST
      DISCOVERY_TIMEOUT 60
      PROPERTIES TIMEOUT 300 ${environment})
  endif()
endfunction()

# backboned_benchmark(NAME <name> SOURCES <file>... [DEPS <target>...])
#
# Makes a program that measures, at the top of the build folder. It is not
# installed.
function(backboned_benchmark)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME" "SOURCES;DEPS")
  add_executable(${arg_NAME} ${arg_SOURCES})
  _backboned_link(${arg_NAME} ${arg_DEPS})
  set_target_properties(${arg_NAME} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}")
endfunction()

function(_backboned_link target)
  _backboned_batch(${target})
  target_include_directories(${target} PUBLIC "${PROJECT_SOURCE_DIR}")
  target_compile_definitions(${target} PRIVATE BACKBONED_VERSION="${PROJECT_VERSION}")
  target_link_libraries(${target} PRIVATE backboned_warnings)
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "EXECUTABLE")
    target_link_libraries(${target} PRIVATE ${ARGN})
    if(BACKBONED_SANITIZE STREQUAL "thread")
      target_sources(${target} PRIVATE $<TARGET_OBJECTS:backboned_tsan_abseil>)
      target_link_libraries(${target} PRIVATE absl::synchronization)
    endif()
  else()
    target_link_libraries(${target} PUBLIC ${ARGN})
  endif()
endfunction()

# In a unity build: as few batches as hold 20 sources at most, since 17 of LibTorch's
# take 1.7 GB of a compiler's memory, and equal ones, for the processors to share.
function(_backboned_batch target)
  get_target_property(sources ${target} SOURCES)
  list(FILTER sources INCLUDE REGEX "\\.cc$")
  list(LENGTH sources count)
  math(EXPR batches "(${count} + 19) / 20")
  math(EXPR size "(${count} + ${batches} - 1) / ${batches}")
  set_target_properties(${target} PROPERTIES UNITY_BUILD_BATCH_SIZE ${size})
endfunction()
