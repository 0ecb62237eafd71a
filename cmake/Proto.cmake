# backboned_proto(PROTOS <file>... [SERVICES <file>...])
#
# Makes the library backboned::proto of the C++ code that protoc generates from
# PROTOS, and with gRPC's stubs from SERVICES. Files are named as they import
# each other, from the calling folder: backboned/v1/tensor.proto.
function(backboned_proto)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "" "PROTOS;SERVICES")
  set(out "${PROJECT_BINARY_DIR}/generated")
  file(MAKE_DIRECTORY "${out}")

  set(sources "")
  foreach(proto IN LISTS arg_PROTOS arg_SERVICES)
    string(REGEX REPLACE "\\.proto$" "" stem "${proto}")
    set(command "--cpp_out=${out}")
    set(files "${out}/${stem}.pb.cc" "${out}/${stem}.pb.h")
    if(proto IN_LIST arg_SERVICES)
      list(APPEND command "--grpc_out=${out}"
        "--plugin=protoc-gen-grpc=$<TARGET_FILE:gRPC::grpc_cpp_plugin>")
      list(APPEND files "${out}/${stem}.grpc.pb.cc" "${out}/${stem}.grpc.pb.h")
    endif()
    add_custom_command(
      OUTPUT ${files}
      COMMAND protobuf::protoc "--proto_path=${CMAKE_CURRENT_SOURCE_DIR}" ${command} "${proto}"
      DEPENDS ${arg_PROTOS} ${arg_SERVICES}
      COMMENT "Generating C++ from ${proto}"
      VERBATIM)
    list(APPEND sources ${files})
  endforeach()

  add_library(backboned_proto STATIC ${sources})
  add_library(backboned::proto ALIAS backboned_proto)
  target_include_directories(backboned_proto SYSTEM PUBLIC "${out}")
  target_compile_options(backboned_proto PRIVATE -w)
  target_link_libraries(backboned_proto PUBLIC gRPC::grpc++ protobuf::libprotobuf)
  set_target_properties(backboned_proto PROPERTIES CXX_CLANG_TIDY "")
endfunction()
