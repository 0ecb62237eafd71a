#include "proto/wire/tensor_writer.h"

#include <grpcpp/support/slice.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <utility>

#include "proto/wire/cursor.h"

namespace backboned::wire {
namespace {

// Tags: field number and encoding.
constexpr char kCallTag = 0x08;
constexpr char kChunkTag = 0x12;
constexpr char kOffsetTag = 0x08;
constexpr char kDataTag = 0x12;

void AppendVarint(std::string& out, uint64_t value) {
  while (value >= 0x80) {
    out.push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<char>(value));
}

std::string EncodeHeader(std::string_view header, uint32_t number) {
  std::string field;
  AppendVarint(field, number << 3 | static_cast<uint32_t>(WireType::kLength));
  AppendVarint(field, header.size());
  field += header;
  return field;
}

// Returns the fields of a chunk of `data_bytes`, up to the data.
std::string EncodeChunk(int64_t offset, int64_t data_bytes) {
  std::string inner;
  if (offset != 0) {  // Protobuf omits a 0.
    inner.push_back(kOffsetTag);
    AppendVarint(inner, static_cast<uint64_t>(offset));
  }
  inner.push_back(kDataTag);
  AppendVarint(inner, static_cast<uint64_t>(data_bytes));
  std::string chunk(1, kChunkTag);
  AppendVarint(chunk, inner.size() + static_cast<uint64_t>(data_bytes));
  return chunk + inner;
}

void Release(void* keep_alive) {
  std::unique_ptr<std::shared_ptr<const void>> owner(
      static_cast<std::shared_ptr<const void>*>(keep_alive));
}

int64_t BytesOf(const std::vector<Payload>& tensors) {
  int64_t bytes = 0;
  for (const Payload& tensor : tensors) bytes += std::ssize(tensor.bytes);
  return bytes;
}

// Returns a slice of `bytes`, which `keep_alive` holds until the slice is gone.
grpc::Slice Share(std::span<const std::byte> bytes,
                  std::shared_ptr<const void> keep_alive) {
  auto owner =
      std::make_unique<std::shared_ptr<const void>>(std::move(keep_alive));
  return grpc::Slice(const_cast<std::byte*>(bytes.data()), bytes.size(),
                     &Release, owner.release());
}

grpc::Slice ShareText(std::string text) {
  auto owner = std::make_shared<const std::string>(std::move(text));
  return Share(std::as_bytes(std::span(*owner)), owner);
}

// Returns `prefix` and then `parts`: large ones shared, small ones copied.
grpc::ByteBuffer Assemble(std::string prefix, std::vector<Payload> parts) {
  std::vector<grpc::Slice> slices;
  std::string gathered = std::move(prefix);
  for (Payload& part : parts) {
    if (std::ssize(part.bytes) < kMinSharedBytes) {
      gathered.append(reinterpret_cast<const char*>(part.bytes.data()),
                      part.bytes.size());
      continue;
    }
    if (!gathered.empty()) slices.push_back(ShareText(std::move(gathered)));
    gathered.clear();
    slices.push_back(Share(part.bytes, std::move(part.keep_alive)));
  }
  if (!gathered.empty()) slices.push_back(ShareText(std::move(gathered)));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

}  // namespace

Frame PartOf(uint64_t call, uint32_t header_field) {
  Frame frame = {.header_field = header_field, .each = {kCallTag}};
  AppendVarint(frame.each, call);
  return frame;
}

TensorWriter::TensorWriter(const google::protobuf::MessageLite& header,
                           std::vector<Payload> tensors, int64_t chunk_bytes,
                           Frame frame, int64_t later_bytes)
    : TensorWriter(header.SerializeAsString(), std::move(tensors), chunk_bytes,
                   std::move(frame), later_bytes) {}

TensorWriter::TensorWriter(std::string_view header,
                           std::vector<Payload> tensors, int64_t chunk_bytes,
                           Frame frame, int64_t later_bytes)
    : frame_(std::move(frame)),
      header_(EncodeHeader(header, frame_.header_field)),
      tensors_(std::move(tensors)) {
  set_chunk_bytes(chunk_bytes);
  given_bytes_ = BytesOf(tensors_);
  total_bytes_ = given_bytes_ + later_bytes;
}

void TensorWriter::Append(std::vector<Payload> tensors) {
  given_bytes_ += BytesOf(tensors);
  // Lets go of tensors that have been sent.
  const auto sent = tensors_.begin() + static_cast<std::ptrdiff_t>(current_);
  tensors_.erase(tensors_.begin(), sent);
  current_ = 0;
  std::ranges::move(tensors, std::back_inserter(tensors_));
}

bool TensorWriter::lacks_bytes() const {
  return given_bytes_ < std::min(sent_bytes_ + chunk_bytes_, total_bytes_);
}

void TensorWriter::set_chunk_bytes(int64_t chunk_bytes) {
  chunk_bytes_ = std::clamp<int64_t>(chunk_bytes, 1, kMaxChunkBytes);
}

std::optional<grpc::ByteBuffer> TensorWriter::Next() {
  if (is_done()) return std::nullopt;
  const int64_t data_bytes = std::min(chunk_bytes_, total_bytes_ - sent_bytes_);
  std::string prefix = frame_.each;
  if (!header_.empty()) prefix += frame_.first + std::exchange(header_, {});
  if (sent_bytes_ + data_bytes == total_bytes_) prefix += frame_.last;
  if (data_bytes > 0) prefix += EncodeChunk(sent_bytes_, data_bytes);
  sent_bytes_ += data_bytes;
  return Assemble(std::move(prefix), TakeParts(data_bytes));
}

std::vector<Payload> TensorWriter::TakeParts(int64_t count_bytes) {
  std::vector<Payload> parts;
  auto missing = static_cast<size_t>(count_bytes);
  while (missing > 0) {
    const Payload& tensor = tensors_[current_];
    const auto rest = tensor.bytes.subspan(current_sent_);
    const size_t count = std::min(rest.size(), missing);
    if (count > 0) parts.push_back({rest.first(count), tensor.keep_alive});
    missing -= count;
    current_sent_ += count;
    if (current_sent_ == tensor.bytes.size()) {
      ++current_;
      current_sent_ = 0;
    }
  }
  return parts;
}

}  // namespace backboned::wire
