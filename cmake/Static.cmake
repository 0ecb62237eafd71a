# BACKBONED_STATIC: gRPC, Protobuf, Abseil, OpenSSL and what they use go into the
# program, which then needs LibTorch, libstdc++ and the C library only. The wheel and
# the container image are made of that program.
#
# Debian's CMake packages name shared libraries. An archive lies beside each, but for
# spdlog and fmt, whose headers have all of them.

option(BACKBONED_STATIC "Link the libraries that Debian packages statically" OFF)

# backboned_contents(<program>)
#
# Installs beside a static program what it consists of: the licences of each part, and
# a list of the parts (CycloneDX). The linker tells which archives went into it. Another
# machine's program has none: its packages are not those that are installed here.
function(backboned_contents program)
  if(NOT BACKBONED_STATIC OR CMAKE_CROSSCOMPILING)
    return()
  endif()
  set(script "${PROJECT_SOURCE_DIR}/deploy/sbom.py")
  set(map "${PROJECT_BINARY_DIR}/${program}.map")
  set(out "${PROJECT_BINARY_DIR}/contents")
  target_link_options(${program} PRIVATE "LINKER:-Map=${map}")
  set_target_properties(${program} PROPERTIES LINK_DEPENDS "${script}")
  add_custom_command(TARGET ${program} POST_BUILD
    COMMAND python3 "${script}" program --map "${map}" --out "${out}"
      --program "$<TARGET_FILE:${program}>"
    VERBATIM)
  set(destination ".")
  if(SKBUILD)
    set(destination "${SKBUILD_METADATA_DIR}")
  endif()
  install(DIRECTORY "${out}/" DESTINATION "${destination}" COMPONENT server)
endfunction()

if(NOT BACKBONED_STATIC)
  add_library(backboned::spdlog ALIAS spdlog::spdlog)
  return()
endif()

# LD_LIBRARY_PATH cannot bring in another LibTorch than the one beside the program.
add_link_options("LINKER:--disable-new-dtags")

# The same program wherever it is built. In the build folder it finds no LibTorch.
set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)
file(REAL_PATH "${BACKBONED_TORCH_DIR}" torch_real)
# The last that matches counts. GCC follows links to headers of the system.
add_compile_options(
  "-ffile-prefix-map=${PROJECT_SOURCE_DIR}=."
  "-ffile-prefix-map=${PROJECT_BINARY_DIR}=build"
  "-ffile-prefix-map=${BACKBONED_TORCH_DIR}=torch"
  "-ffile-prefix-map=${torch_real}=torch")

get_property(imported DIRECTORY PROPERTY IMPORTED_TARGETS)
foreach(target IN LISTS imported)
  get_target_property(type ${target} TYPE)
  if(NOT type MATCHES "^(SHARED|UNKNOWN)_LIBRARY$")
    continue()
  endif()
  foreach(property IN ITEMS IMPORTED_LOCATION IMPORTED_LOCATION_NONE IMPORTED_LOCATION_RELEASE)
    get_target_property(location ${target} ${property})
    if(location)
      string(REGEX REPLACE "\\.so[.0-9]*$" ".a" archive "${location}")
      if(EXISTS "${archive}")
        set_target_properties(${target} PROPERTIES ${property} "${archive}")
      endif()
    endif()
  endforeach()
endforeach()

# gRPC's package finds RE2 by pkg-config, as "-lre2".
set_target_properties(re2::re2 PROPERTIES
  INTERFACE_LINK_LIBRARIES "-l:libre2.a;Threads::Threads")

add_library(backboned::spdlog ALIAS spdlog::spdlog_header_only)
set_target_properties(spdlog::spdlog_header_only PROPERTIES
  INTERFACE_LINK_LIBRARIES "Threads::Threads;fmt::fmt-header-only")
