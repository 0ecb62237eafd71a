// Places the tensors of an instance in a safetensors file, and finds them
// there.

#ifndef BACKBONED_CLIENT_CLI_PARAMS_FILE_H_
#define BACKBONED_CLIENT_CLI_PARAMS_FILE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backboned/v1/instance.pb.h"
#include "base/safetensors.h"

namespace backboned::cli {

// Returns the entries of a file with all parameters, in flat order and of
// `dtype`, then all buffers: a state dict.
//
// Returns kUnimplemented if a file cannot have such a type.
absl::StatusOr<std::vector<SafetensorsEntry>> EntriesOf(
    const v1::Layout& layout, v1::DataType dtype,
    std::span<const v1::TensorSpec> buffers);

// Returns the bytes of parameters and buffers.
int64_t StateBytes(const v1::Layout& layout, v1::DataType dtype);

// Tensors of an instance that came from a file.
struct FileParams {
  // The indexes of the parameters in the layout, in order, and their bytes.
  std::vector<int> parameters;
  v1::DataType dtype = v1::DATA_TYPE_UNSPECIFIED;
  std::vector<std::byte> params;
  // The same of the buffers.
  std::vector<int> buffers;
  std::vector<v1::TensorSpec> buffer_specs;
  std::vector<std::vector<std::byte>> buffer_bytes;
};

// Reads a file for an instance of `layout`. Keys are those of its state dict,
// aliases too. Unless `partial`, each tensor must be there, but for
// `num_batches_tracked`, and no other.
//
// Returns kNotFound if there is no such file, kFailedPrecondition if it cannot
// be read, kInvalidArgument if it is no safetensors file or does not fit.
absl::StatusOr<FileParams> ReadParams(const std::string& path,
                                      const v1::Layout& layout, bool partial);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_PARAMS_FILE_H_
