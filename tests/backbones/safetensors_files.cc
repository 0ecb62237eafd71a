#include "tests/backbones/safetensors_files.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <nlohmann/json.hpp>

namespace backboned {
namespace {

std::string DtypeName(at::ScalarType type) {
  if (type == at::kLong) return "I64";
  if (type == at::kDouble) return "F64";
  if (type == at::kHalf) return "F16";
  if (type == at::kBFloat16) return "BF16";
  EXPECT_EQ(type, at::kFloat);
  return "F32";
}

}  // namespace

std::string SafetensorsBytes(const std::string& header,
                             const std::string& data) {
  const uint64_t length = header.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + header + data;
}

std::string SafetensorsOf(const NamedTensors& tensors) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    const size_t begin = data.size();
    data.append(static_cast<const char*>(tensor.const_data_ptr()),
                tensor.nbytes());
    header[name] = {{"dtype", DtypeName(tensor.scalar_type())},
                    {"shape", tensor.sizes().vec()},
                    {"data_offsets", {begin, data.size()}}};
  }
  return SafetensorsBytes(header.dump(), data);
}

int OpenBytes(const std::string& bytes) {
  const int fd = memfd_create("weights", MFD_CLOEXEC);
  EXPECT_EQ(write(fd, bytes.data(), bytes.size()),
            static_cast<ssize_t>(bytes.size()));
  lseek(fd, 0, SEEK_SET);
  return fd;
}

}  // namespace backboned
