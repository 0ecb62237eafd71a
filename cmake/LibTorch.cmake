# LibTorch::LibTorch: the C++ headers and CPU libraries of the PyPI wheel.
#
# Torch's own CMake package demands a CUDA toolkit, hence these targets.

set(torch_version 2.11.0)

set(BACKBONED_TORCH_DIR "${PROJECT_SOURCE_DIR}/.venv/lib/python3.11/site-packages/torch"
  CACHE PATH "The torch package: a folder that holds include/ and lib/")

set(torch_version_header "${BACKBONED_TORCH_DIR}/include/torch/headeronly/version.h")
if(NOT EXISTS "${torch_version_header}")
  message(FATAL_ERROR
    "LibTorch is not in '${BACKBONED_TORCH_DIR}'; run scripts/setup, or set "
    "BACKBONED_TORCH_DIR to the folder of a torch ${torch_version} package.")
endif()
file(STRINGS "${torch_version_header}" torch_found
  REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
list(TRANSFORM torch_found REPLACE ".* ([0-9]+).*" "\\1")
list(JOIN torch_found "." torch_found)
if(NOT torch_found VERSION_EQUAL torch_version)
  message(FATAL_ERROR
    "LibTorch in '${BACKBONED_TORCH_DIR}' is ${torch_found}, not "
    "${torch_version}; run scripts/setup.")
endif()

foreach(library IN ITEMS c10 torch_cpu)
  add_library(LibTorch::${library} SHARED IMPORTED)
  set_target_properties(LibTorch::${library} PROPERTIES
    IMPORTED_LOCATION "${BACKBONED_TORCH_DIR}/lib/lib${library}.so")
endforeach()

add_library(LibTorch::LibTorch INTERFACE IMPORTED)
target_link_libraries(LibTorch::LibTorch INTERFACE
  LibTorch::torch_cpu LibTorch::c10 Threads::Threads)
# After the system's folders: the wheel carries an old google/protobuf.
target_compile_options(LibTorch::LibTorch INTERFACE
  "SHELL:-idirafter ${BACKBONED_TORCH_DIR}/include"
  "SHELL:-idirafter ${BACKBONED_TORCH_DIR}/include/torch/csrc/api/include")
