// Writes sound and unsound safetensors files for tests.

#ifndef BACKBONED_TESTS_BACKBONES_SAFETENSORS_FILES_H_
#define BACKBONED_TESTS_BACKBONES_SAFETENSORS_FILES_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace backboned {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// Returns the bytes of a file: the header's length, `header`, then `data`.
std::string SafetensorsBytes(const std::string& header,
                             const std::string& data);

// Returns a sound file of `tensors` in their order.
std::string SafetensorsOf(const NamedTensors& tensors);

// Opens an unnamed file of these bytes.
int OpenBytes(const std::string& bytes);

}  // namespace backboned

#endif  // BACKBONED_TESTS_BACKBONES_SAFETENSORS_FILES_H_
