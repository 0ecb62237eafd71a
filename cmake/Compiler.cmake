# The language, the warnings of our own targets, sanitizers and ccache.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)

set(BACKBONED_SANITIZE "" CACHE STRING "Sanitizers: address,undefined or thread")

# Linked privately to every target of ours, and never to generated code.
add_library(backboned_warnings INTERFACE)
target_compile_options(backboned_warnings INTERFACE
  -Wall -Wextra -Werror
  -Wcast-align -Wconversion -Wnon-virtual-dtor -Wold-style-cast
  -Woverloaded-virtual -Wshadow
  # What a designated initializer leaves out is initialised by default.
  -Wno-missing-field-initializers
  # Wrong about std::string's operator+ in GCC 12 (GCC bug 105651).
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
  # A coroutine's frame is a type of its own, which it takes for one of a header
  # where a unity build includes the source.
  $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>
  $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety>)

if(BACKBONED_SANITIZE)
  # vptr needs type information that LibTorch does not export.
  add_compile_options(-fsanitize=${BACKBONED_SANITIZE} -fno-sanitize=vptr
    -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${BACKBONED_SANITIZE})
  # GCC's flow analysis is wrong about instrumented code.
  target_compile_options(backboned_warnings INTERFACE -Wno-maybe-uninitialized)
endif()

find_program(CCACHE ccache)
if(CCACHE AND NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CCACHE}")
endif()
