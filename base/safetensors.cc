#include "base/safetensors.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace backboned {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr int64_t kLengthBytes = 8;
constexpr std::string_view kMetadataName = "__metadata__";

struct Type {
  std::string_view name;
  int64_t bytes;
};

// By SafetensorsDtype.
constexpr auto kTypes = std::to_array<Type>({{"BOOL", 1},
                                             {"U8", 1},
                                             {"I8", 1},
                                             {"I16", 2},
                                             {"I32", 4},
                                             {"I64", 8},
                                             {"F16", 2},
                                             {"BF16", 2},
                                             {"F32", 4},
                                             {"F64", 8}});

const Type& TypeOf(SafetensorsDtype dtype) {
  return kTypes[static_cast<size_t>(dtype)];
}

absl::Status Unsound(std::string_view message) {
  return Error(absl::StatusCode::kFailedPrecondition,
               Reason::kWeightsUnreadable, message);
}

// Takes the header's JSON piece by piece: keeps only the entries, and ends the
// parsing at anything that does not belong there.
class HeaderHandler : public nlohmann::json_sax<nlohmann::json> {
 public:
  // The reason why the parsing ended.
  const std::string& error() const { return error_; }
  std::vector<SafetensorsEntry> TakeEntries() { return std::move(entries_); }

  bool start_object(std::size_t /*elements*/) override {
    if (place_ == Place::kStart) return Go(Place::kTop);
    if (place_ == Place::kTopValue) {
      fields_.clear();
      return Go(in_metadata_ ? Place::kMetadata : Place::kEntry);
    }
    return Unexpected("an object");
  }

  bool key(std::string& name) override {
    if (place_ == Place::kTop) return BeginTensor(name);
    if (!fields_.insert(name).second) {
      return Fail(absl::StrCat("key ", Quote(name), " occurs twice"));
    }
    if (place_ == Place::kMetadata) return Go(Place::kMetadataValue);
    if (name == "dtype") return Go(Place::kDtype);
    if (name == "shape") return Go(Place::kShape);
    if (name == "data_offsets") return Go(Place::kOffsets);
    return Fail(absl::StrCat("tensor ", Quote(entries_.back().name),
                             " has an unknown field ", Quote(name)));
  }

  bool end_object() override {
    if (place_ == Place::kEntry) {
      if (fields_.size() < 3) {
        return Fail(absl::StrCat("tensor ", Quote(entries_.back().name),
                                 " lacks dtype, shape or data_offsets"));
      }
      return Go(Place::kTop);
    }
    return Go(place_ == Place::kMetadata ? Place::kTop : Place::kEnd);
  }

  bool start_array(std::size_t /*elements*/) override {
    if (place_ == Place::kShape) return Go(Place::kShapeItem);
    if (place_ == Place::kOffsets) {
      offsets_.clear();
      return Go(Place::kOffsetsItem);
    }
    return Unexpected("an array");
  }

  bool end_array() override {
    if (place_ == Place::kOffsetsItem) {
      if (offsets_.size() != 2) {
        return Fail(absl::StrCat("tensor ", Quote(entries_.back().name),
                                 " has ", offsets_.size(),
                                 " data offsets, expected 2"));
      }
      entries_.back().begin = offsets_[0];
      entries_.back().end = offsets_[1];
    }
    return Go(Place::kEntry);
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Unexpected("a number over 2^63 - 1");
    }
    const auto number = static_cast<int64_t>(value);
    if (place_ == Place::kShapeItem) return AddSize(number);
    if (place_ != Place::kOffsetsItem || offsets_.size() > 1) {
      return Unexpected("a number");
    }
    offsets_.push_back(number);
    return true;
  }

  bool string(std::string& text) override {
    if (place_ == Place::kMetadataValue) return Go(Place::kMetadata);
    if (place_ != Place::kDtype) return Unexpected("a string");
    const auto* found = std::ranges::find(kTypes, text, &Type::name);
    if (found == kTypes.end()) {
      return Fail(absl::StrCat("tensor ", Quote(entries_.back().name),
                               " has an unknown dtype ", Quote(text)));
    }
    entries_.back().dtype =
        static_cast<SafetensorsDtype>(found - kTypes.begin());
    return Go(Place::kEntry);
  }

  bool null() override { return Unexpected("null"); }
  bool boolean(bool /*value*/) override { return Unexpected("a boolean"); }
  bool binary(binary_t& /*value*/) override { return Unexpected("binary"); }
  bool number_integer(number_integer_t /*value*/) override {
    return Unexpected("a negative number");
  }
  bool number_float(number_float_t /*value*/,
                    const string_t& /*text*/) override {
    return Unexpected("a number that is not an integer");
  }
  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& /*error*/) override {
    return Fail(
        absl::StrCat("the header is not JSON from its byte ", position));
  }

 private:
  // The next expected element.
  enum class Place {
    kStart,
    kTop,
    kTopValue,
    kMetadata,
    kMetadataValue,
    kEntry,
    kDtype,
    kShape,
    kShapeItem,
    kOffsets,
    kOffsetsItem,
    kEnd
  };

  bool Go(Place place) {
    place_ = place;
    return true;
  }

  bool Fail(std::string message) {
    if (error_.empty()) error_ = std::move(message);
    return false;
  }

  bool Unexpected(const std::string& what) {
    std::string where;
    if (!entries_.empty()) {
      where = absl::StrCat(" at tensor ", Quote(entries_.back().name));
    }
    return Fail(
        absl::StrCat("the header has ", what, where, " where none may be"));
  }

  bool BeginTensor(const std::string& name) {
    if (!names_.insert(name).second) {
      return Fail(absl::StrCat("tensor ", Quote(name), " occurs twice"));
    }
    in_metadata_ = name == kMetadataName;
    if (name.size() > kMaxSafetensorsNameBytes) {
      return Fail(absl::StrCat("a tensor's name has ", name.size(),
                               " bytes, the limit is ",
                               kMaxSafetensorsNameBytes));
    }
    if (!in_metadata_) entries_.push_back({.name = name});
    return Go(Place::kTopValue);
  }

  bool AddSize(int64_t size) {
    SafetensorsEntry& entry = entries_.back();
    if (entry.shape.size() == kMaxSafetensorsDimensions) {
      return Fail(absl::StrCat("tensor ", Quote(entry.name), " has more than ",
                               kMaxSafetensorsDimensions, " dimensions"));
    }
    entry.shape.push_back(size);
    return true;
  }

  Place place_ = Place::kStart;
  bool in_metadata_ = false;
  std::set<std::string> names_;
  std::set<std::string> fields_;  // Of the present entry, or the metadata.
  std::vector<int64_t> offsets_;
  std::vector<SafetensorsEntry> entries_;
  std::string error_;
};

// Returns the bytes of a tensor, or nothing if no 64-bit number holds them.
std::optional<int64_t> BytesOf(const SafetensorsEntry& entry) {
  int64_t bytes = ElementBytes(entry.dtype);
  for (const int64_t size : entry.shape) {
    if (__builtin_mul_overflow(bytes, size, &bytes)) return std::nullopt;
  }
  return bytes;
}

// Checks that `entries`, sorted, cover each of `data_bytes` once.
absl::Status CheckData(const std::vector<SafetensorsEntry>& entries,
                       int64_t data_bytes) {
  int64_t expected = 0;
  for (const SafetensorsEntry& entry : entries) {
    const std::string tensor = absl::StrCat("tensor ", Quote(entry.name));
    if (entry.begin != expected) {
      return Unsound(absl::StrCat(tensor, " starts at byte ", entry.begin,
                                  " of the data, expected byte ", expected));
    }
    if (entry.end < entry.begin || entry.end > data_bytes) {
      return Unsound(absl::StrCat(tensor, " ends at byte ", entry.end,
                                  " of the data, which starts at ", entry.begin,
                                  " and has ", data_bytes));
    }
    const std::optional<int64_t> bytes = BytesOf(entry);
    if (bytes != entry.end - entry.begin) {
      return Unsound(absl::StrCat(
          tensor, " of shape ", FormatShape(entry.shape), " has ",
          entry.end - entry.begin, " bytes, expected ",
          bytes.has_value() ? absl::StrCat(*bytes) : "more than 2^63"));
    }
    expected = entry.end;
  }
  if (expected == data_bytes) return absl::OkStatus();
  return Unsound(absl::StrCat("the tensors have ", expected,
                              " bytes, the file has ", data_bytes,
                              " behind its header"));
}

// Reads exactly `bytes` from the file's position.
absl::Status ReadExactly(int fd, std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = read(fd, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {  // The file may be sound.
      return Error(absl::StatusCode::kInternal, Reason::kWeightsUnreadable,
                   absl::StrCat("the file cannot be read: ",
                                std::string(std::strerror(errno))));
    }
    if (count == 0) return Unsound("the file was cut short while it was read");
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return absl::OkStatus();
}

}  // namespace

std::string_view NameOf(SafetensorsDtype dtype) { return TypeOf(dtype).name; }

int64_t ElementBytes(SafetensorsDtype dtype) { return TypeOf(dtype).bytes; }

absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensorsHeader(
    std::string_view header, int64_t data_bytes) {
  if (!header.starts_with('{')) {
    return Unsound("the header does not begin with {");
  }
  HeaderHandler handler;
  if (!nlohmann::json::sax_parse(header.begin(), header.end(), &handler)) {
    return Unsound(handler.error());
  }
  std::vector<SafetensorsEntry> entries = handler.TakeEntries();
  std::ranges::sort(entries, {}, [](const SafetensorsEntry& entry) {
    return std::tie(entry.begin, entry.end, entry.name);
  });
  absl::Status status = CheckData(entries, data_bytes);
  if (!status.ok()) return status;
  return entries;
}

std::string SafetensorsHeader(std::span<const SafetensorsEntry> entries) {
  nlohmann::ordered_json json;
  json[std::string(kMetadataName)]["format"] = "pt";
  for (const SafetensorsEntry& entry : entries) {
    json[entry.name] = {{"dtype", NameOf(entry.dtype)},
                        {"shape", entry.shape},
                        {"data_offsets", {entry.begin, entry.end}}};
  }
  std::string header = json.dump();
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const uint64_t length = header.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + header;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Read(int fd,
                                                      Observer observer) {
  SafetensorsFile file(fd, std::move(observer));
  absl::Status status = file.ReadHeader();
  if (!status.ok()) return status;
  return file;
}

absl::Status SafetensorsFile::ReadHeader() {
  struct stat about = {};
  if (fstat(file_.get(), &about) != 0 || !S_ISREG(about.st_mode)) {
    return Unsound("it is not a regular file");
  }
  if (about.st_size < kLengthBytes) {
    return Unsound(absl::StrCat("the file has ", about.st_size,
                                " bytes, too few for a header"));
  }
  uint64_t length = 0;
  absl::Status status = ReadNext(std::as_writable_bytes(std::span(&length, 1)));
  if (!status.ok()) return status;
  const int64_t rest = about.st_size - kLengthBytes;
  if (length > static_cast<uint64_t>(kMaxSafetensorsHeaderBytes)) {
    return Unsound(absl::StrCat("the header has ", length,
                                " bytes, the limit is ",
                                kMaxSafetensorsHeaderBytes));
  }
  const auto header_bytes = static_cast<int64_t>(length);
  if (header_bytes > rest) {
    return Unsound(absl::StrCat("the header has ", header_bytes,
                                " bytes, the file has ", rest,
                                " behind its length"));
  }
  std::string header(static_cast<size_t>(header_bytes), '\0');
  status = ReadNext(std::as_writable_bytes(std::span(header)));
  if (!status.ok()) return status;
  absl::StatusOr<std::vector<SafetensorsEntry>> entries =
      ParseSafetensorsHeader(header, rest - header_bytes);
  if (!entries.ok()) return entries.status();
  entries_ = *std::move(entries);
  return absl::OkStatus();
}

absl::Status SafetensorsFile::ReadNext(std::span<std::byte> bytes) {
  absl::Status status = ReadExactly(file_.get(), bytes);
  if (status.ok() && observer_) observer_(bytes);
  return status;
}

}  // namespace backboned
