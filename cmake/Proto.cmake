# backboned_proto(PROTOS <file>... [SERVICES <file>...])
#
# Makes two libraries of the C++ code that protoc generates: backboned::proto, the
# messages of PROTOS and SERVICES, and backboned::stubs, gRPC's classes of SERVICES,
# which only clients use. Files are named as they import each other, from the
# calling folder: backboned/v1/tensor.proto.
function(backboned_proto)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "" "PROTOS;SERVICES")
  set(out "${PROJECT_BINARY_DIR}/generated")
  file(MAKE_DIRECTORY "${out}")

  set(messages "")
  set(stubs "")
  foreach(proto IN LISTS arg_PROTOS arg_SERVICES)
    string(REGEX REPLACE "\\.proto$" "" stem "${proto}")
    set(command "--cpp_out=${out}")
    set(files "${out}/${stem}.pb.cc" "${out}/${stem}.pb.h")
    list(APPEND messages ${files})
    if(proto IN_LIST arg_SERVICES)
      list(APPEND command "--grpc_out=${out}"
        "--plugin=protoc-gen-grpc=$<TARGET_FILE:gRPC::grpc_cpp_plugin>")
      list(APPEND stubs "${out}/${stem}.grpc.pb.cc" "${out}/${stem}.grpc.pb.h")
      list(APPEND files "${out}/${stem}.grpc.pb.cc" "${out}/${stem}.grpc.pb.h")
    endif()
    add_custom_command(
      OUTPUT ${files}
      COMMAND protobuf::protoc "--proto_path=${CMAKE_CURRENT_SOURCE_DIR}" ${command} "${proto}"
      DEPENDS ${arg_PROTOS} ${arg_SERVICES}
      COMMENT "Generating C++ from ${proto}"
      VERBATIM)
  endforeach()

  _backboned_generated(proto ${messages})
  target_include_directories(backboned_proto SYSTEM PUBLIC "${out}")
  target_link_libraries(backboned_proto PUBLIC gRPC::grpc++ protobuf::libprotobuf)
  _backboned_generated(stubs ${stubs})
  target_link_libraries(backboned_stubs PUBLIC backboned::proto)
endfunction()

function(_backboned_generated name)
  set(target backboned_${name})
  add_library(${target} STATIC ${ARGN})
  add_library(backboned::${name} ALIAS ${target})
  target_compile_options(${target} PRIVATE -w)
  # Generated files name their static tables alike.
  set_target_properties(${target} PROPERTIES CXX_CLANG_TIDY "" UNITY_BUILD OFF)
endfunction()
