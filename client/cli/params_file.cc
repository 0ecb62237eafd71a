#include "client/cli/params_file.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/errors.h"

namespace backboned::cli {
namespace {

constexpr size_t kListedKeys = 3;

constexpr auto kDtypes =
    std::to_array<std::pair<v1::DataType, SafetensorsDtype>>(
        {{v1::DATA_TYPE_FLOAT32, SafetensorsDtype::kF32},
         {v1::DATA_TYPE_FLOAT64, SafetensorsDtype::kF64},
         {v1::DATA_TYPE_FLOAT16, SafetensorsDtype::kF16},
         {v1::DATA_TYPE_BFLOAT16, SafetensorsDtype::kBf16},
         {v1::DATA_TYPE_UINT8, SafetensorsDtype::kU8},
         {v1::DATA_TYPE_INT64, SafetensorsDtype::kI64}});

std::optional<SafetensorsDtype> InFile(v1::DataType dtype) {
  for (const auto& [ours, file] : kDtypes) {
    if (ours == dtype) return file;
  }
  return std::nullopt;
}

std::optional<v1::DataType> OnWire(SafetensorsDtype dtype) {
  for (const auto& [ours, file] : kDtypes) {
    if (file == dtype) return ours;
  }
  return std::nullopt;
}

bool IsFloating(v1::DataType dtype) {
  return dtype != v1::DATA_TYPE_UINT8 && dtype != v1::DATA_TYPE_INT64;
}

std::vector<int64_t> SizesOf(
    const google::protobuf::RepeatedField<int64_t>& shape) {
  return {shape.begin(), shape.end()};
}

int64_t ElementsOf(const google::protobuf::RepeatedField<int64_t>& shape) {
  int64_t elements = 1;
  for (const int64_t size : shape) elements *= size;
  return elements;
}

// The element type of a buffer in an instance of `dtype`.
v1::DataType StoredAs(const v1::Buffer& buffer, v1::DataType dtype) {
  return IsFloating(buffer.dtype()) ? dtype : buffer.dtype();
}

// Returns `a, b, c and 4 more`.
std::string ListKeys(const std::vector<std::string>& keys) {
  const size_t listed = std::min(keys.size(), kListedKeys);
  std::string text = absl::StrJoin(keys.begin(), keys.begin() + listed, ", ");
  if (keys.size() > listed) {
    absl::StrAppend(&text, " and ", keys.size() - listed, " more");
  }
  return text;
}

// Finds the place of each entry of a file in a layout, and reads it there.
class FileReader {
 public:
  FileReader(const v1::Layout& layout, bool partial)
      : layout_(layout), partial_(partial) {
    for (int p = 0; p < layout.parameters_size(); ++p) {
      const v1::Parameter& parameter = layout.parameters(p);
      places_[parameter.name()] = {p, &parameter.shape()};
      for (const auto& alias : parameter.aliases()) {
        places_[alias] = {p, &parameter.shape()};
      }
    }
    for (int b = 0; b < layout.buffers_size(); ++b) {
      const v1::Buffer& buffer = layout.buffers(b);
      places_[buffer.name()] = {layout.parameters_size() + b, &buffer.shape()};
    }
  }

  // Chooses an entry for each place. Returns kInvalidArgument if they do not
  // fit.
  absl::Status Plan(const std::vector<SafetensorsEntry>& entries) {
    std::vector<std::string> unexpected;
    for (size_t e = 0; e < entries.size(); ++e) {
      const auto place = places_.find(entries[e].name);
      if (place == places_.end()) {
        unexpected.push_back(entries[e].name);
        continue;
      }
      const std::vector<int64_t> expected = SizesOf(*place->second.shape);
      if (entries[e].shape != expected) {
        return absl::InvalidArgumentError(
            absl::StrCat("tensor ", Quote(entries[e].name), " is ",
                         FormatShape(entries[e].shape), ", expected ",
                         FormatShape(expected)));
      }
      chosen_[place->second.index] = e;  // Of two names, the last one.
    }
    if (partial_) return absl::OkStatus();
    std::vector<std::string> missing = Missing();
    if (missing.empty() && unexpected.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(
        missing.empty() ? ""
                        : absl::StrCat("the file lacks ", ListKeys(missing)),
        !missing.empty() && !unexpected.empty() ? "; " : "",
        unexpected.empty()
            ? ""
            : absl::StrCat("the instance has no ", ListKeys(unexpected)),
        "; --partial takes what fits"));
  }

  // Makes room for what was chosen. Returns kInvalidArgument if the elements
  // cannot be sent.
  absl::Status MakeRoom(const std::vector<SafetensorsEntry>& entries) {
    int64_t params_bytes = 0;
    for (const auto& [index, e] : chosen_) {
      const SafetensorsEntry& entry = entries[e];
      const std::optional<v1::DataType> dtype = OnWire(entry.dtype);
      const bool is_parameter = index < layout_.parameters_size();
      if (!dtype || (is_parameter && !IsFloating(*dtype))) {
        return absl::InvalidArgumentError(
            absl::StrCat("tensor ", Quote(entry.name), " is of type ",
                         std::string(NameOf(entry.dtype)), ", expected F32"));
      }
      if (!is_parameter) {
        AddBuffer(index - layout_.parameters_size(), entry, *dtype);
        continue;
      }
      if (!read_.parameters.empty() && read_.dtype != *dtype) {
        return absl::InvalidArgumentError(
            absl::StrCat("the parameters are of several types, ",
                         std::string(NameOf(entry.dtype)), " and ",
                         std::string(NameOf(*InFile(read_.dtype))),
                         "; convert the file first"));
      }
      read_.dtype = *dtype;
      read_.parameters.push_back(index);
      begins_[e] = params_bytes;
      params_bytes += entry.end - entry.begin;
    }
    read_.params.resize(static_cast<size_t>(params_bytes));
    return absl::OkStatus();
  }

  // Reads all of the file, in its order.
  absl::Status Read(SafetensorsFile& file) {
    const std::vector<SafetensorsEntry>& entries = file.entries();
    std::map<size_t, std::span<std::byte>> places;
    for (const auto& [e, begin] : begins_) {
      places[e] = std::span(read_.params)
                      .subspan(static_cast<size_t>(begin), BytesOf(entries[e]));
    }
    for (const auto& [e, buffer] : buffers_) {
      read_.buffer_bytes[buffer].resize(BytesOf(entries[e]));
      places[e] = read_.buffer_bytes[buffer];
    }
    std::vector<std::byte> ignored;
    for (size_t e = 0; e < entries.size(); ++e) {
      if (!places.contains(e)) ignored.resize(BytesOf(entries[e]));
      absl::Status status =
          file.ReadNext(places.contains(e) ? places[e] : std::span(ignored));
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  FileParams Take() { return std::move(read_); }

 private:
  struct Place {
    int index = 0;  // Among the parameters, then the buffers.
    const google::protobuf::RepeatedField<int64_t>* shape = nullptr;
  };

  static size_t BytesOf(const SafetensorsEntry& entry) {
    return static_cast<size_t>(entry.end - entry.begin);
  }

  std::vector<std::string> Missing() const {
    std::vector<std::string> missing;
    for (int p = 0; p < layout_.parameters_size(); ++p) {
      if (!chosen_.contains(p)) missing.push_back(layout_.parameters(p).name());
    }
    for (int b = 0; b < layout_.buffers_size(); ++b) {
      const std::string& name = layout_.buffers(b).name();
      if (!chosen_.contains(layout_.parameters_size() + b) &&
          !absl::EndsWith(name, "num_batches_tracked")) {
        missing.push_back(name);
      }
    }
    return missing;
  }

  void AddBuffer(int buffer, const SafetensorsEntry& entry,
                 v1::DataType dtype) {
    buffers_[chosen_.at(layout_.parameters_size() + buffer)] =
        read_.buffers.size();
    v1::TensorSpec spec;
    spec.set_name(layout_.buffers(buffer).name());
    spec.set_dtype(dtype);
    for (const int64_t size : entry.shape) spec.add_shape(size);
    read_.buffers.push_back(buffer);
    read_.buffer_specs.push_back(std::move(spec));
    read_.buffer_bytes.emplace_back();
  }

  const v1::Layout& layout_;
  const bool partial_;
  std::map<std::string, Place, std::less<>> places_;
  std::map<int, size_t> chosen_;      // The entry of each place.
  std::map<size_t, int64_t> begins_;  // In the parameters, of an entry.
  std::map<size_t, size_t> buffers_;  // The buffer of an entry.
  FileParams read_;
};

}  // namespace

absl::StatusOr<std::vector<SafetensorsEntry>> EntriesOf(
    const v1::Layout& layout, v1::DataType dtype,
    std::span<const v1::TensorSpec> buffers) {
  std::vector<SafetensorsEntry> entries;
  int64_t end = 0;
  const auto add = [&](const std::string& name, v1::DataType type,
                       const google::protobuf::RepeatedField<int64_t>& shape) {
    const std::optional<SafetensorsDtype> in_file = InFile(type);
    if (!in_file) return false;
    const int64_t begin = end;
    end += ElementsOf(shape) * ElementBytes(*in_file);
    entries.push_back({.name = name,
                       .dtype = *in_file,
                       .shape = SizesOf(shape),
                       .begin = begin,
                       .end = end});
    return true;
  };
  bool is_known = true;
  for (const v1::Parameter& parameter : layout.parameters()) {
    is_known &= add(parameter.name(), dtype, parameter.shape());
  }
  for (const v1::TensorSpec& buffer : buffers) {
    is_known &= add(buffer.name(), buffer.dtype(), buffer.shape());
  }
  if (is_known) return entries;
  return absl::UnimplementedError(
      "the instance has elements of a type that this program does not know; "
      "take a newer backbonectl");
}

int64_t StateBytes(const v1::Layout& layout, v1::DataType dtype) {
  const auto size = [](v1::DataType type) {
    return ElementBytes(InFile(type).value_or(SafetensorsDtype::kF32));
  };
  int64_t bytes = layout.parameter_elements() * size(dtype);
  for (const v1::Buffer& buffer : layout.buffers()) {
    bytes += ElementsOf(buffer.shape()) * size(StoredAs(buffer, dtype));
  }
  return bytes;
}

absl::StatusOr<FileParams> ReadParams(const std::string& path,
                                      const v1::Layout& layout, bool partial) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    const std::string message =
        absl::StrCat("cannot read ", path, ": ", std::strerror(errno));
    return errno == ENOENT ? absl::NotFoundError(message)
                           : absl::FailedPreconditionError(message);
  }
  absl::StatusOr<SafetensorsFile> opened = SafetensorsFile::Read(file, nullptr);
  if (absl::IsFailedPrecondition(opened.status())) {  // It is not sound.
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", std::string(opened.status().message())));
  }
  if (!opened.ok()) return PrefixMessage(path, opened.status());
  FileReader reader(layout, partial);
  absl::Status status = reader.Plan(opened->entries());
  if (status.ok()) status = reader.MakeRoom(opened->entries());
  if (status.ok()) status = reader.Read(*opened);
  if (!status.ok()) return PrefixMessage(path, status);
  return reader.Take();
}

}  // namespace backboned::cli
