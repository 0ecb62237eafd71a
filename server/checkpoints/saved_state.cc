#include "server/checkpoints/saved_state.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backbones/dtypes.h"
#include "backbones/optimizer_slots.h"
#include "base/digest.h"
#include "base/errors.h"
#include "server/device/host_view.h"

namespace backboned {
namespace {

using Part = SavedTensor::Part;

constexpr char kGeneratorName[] = "generator/rng_state";

std::string GradName(const Parameter& parameter) {
  return absl::StrCat("grad/", parameter.name);
}

std::string SlotName(const std::string& name) {
  return absl::StrCat("optimizer/", name);
}

at::Tensor GeneratorTensor(const std::string& rng_state) {
  at::Tensor bytes =
      at::empty({static_cast<int64_t>(rng_state.size())}, at::kByte);
  std::memcpy(bytes.mutable_data_ptr(), rng_state.data(), rng_state.size());
  return bytes;
}

absl::Status Unreadable(std::string_view message) {
  return Error(absl::StatusCode::kFailedPrecondition,
               Reason::kCheckpointUnreadable, message);
}

}  // namespace

std::vector<SavedTensor> TensorsToSave(const State& state,
                                       const Layout& layout) {
  std::vector<SavedTensor> tensors;
  const std::vector<Parameter>& parameters = layout.parameters();
  for (size_t p = 0; p < parameters.size(); ++p) {
    tensors.push_back({parameters[p].name, state.params[p],
                       parameters[p].head ? Part::kHead : Part::kTrunk});
  }
  for (size_t b = 0; b < state.buffers.size(); ++b) {
    tensors.push_back(
        {layout.buffers()[b].name, state.buffers[b], Part::kRest});
  }
  for (size_t s = 0; s < state.shared.size(); ++s) {
    tensors.push_back({layout.shared()[s].name, state.shared[s], Part::kRest});
  }
  tensors.push_back(
      {kGeneratorName, GeneratorTensor(state.rng_state), Part::kRest});
  for (size_t p = 0; p < parameters.size(); ++p) {
    if (!state.grads[p].defined()) continue;
    tensors.push_back({GradName(parameters[p]), state.grads[p], Part::kGrads});
  }
  if (state.optimizer == nullptr) return tensors;
  for (size_t p = 0; p < parameters.size(); ++p) {
    const std::vector<at::Tensor>& slots = state.optimizer->slots[p];
    const std::vector<std::string> names =
        SlotTensorNames(*state.optimizer, layout, p);
    for (size_t s = 0; s < slots.size(); ++s) {
      tensors.push_back({SlotName(names[s]), slots[s], Part::kOptimizer});
    }
  }
  return tensors;
}

std::vector<std::vector<SavedTensor>> CutFiles(
    std::vector<SavedTensor> tensors) {
  std::vector<std::vector<SavedTensor>> files;
  int64_t bytes = 0;
  for (SavedTensor& tensor : tensors) {
    if (files.empty() || bytes >= kFileBytes ||
        files.back().back().part != tensor.part) {
      files.emplace_back();
      bytes = 0;
    }
    bytes += static_cast<int64_t>(tensor.tensor.nbytes());
    files.back().push_back(std::move(tensor));
  }
  return files;
}

FileImage ImageOf(const std::vector<SavedTensor>& file) {
  FileImage image;
  std::vector<SafetensorsEntry> entries;
  int64_t end = 0;
  for (const SavedTensor& saved : file) {
    const int64_t begin = end;
    end += static_cast<int64_t>(saved.tensor.nbytes());
    entries.push_back({.name = saved.name,
                       .dtype = SafetensorsDtypeOf(saved.tensor.scalar_type()),
                       .shape = saved.tensor.sizes().vec(),
                       .begin = begin,
                       .end = end});
    image.tensors.push_back(saved.tensor);
  }
  image.header = SafetensorsHeader(entries);
  return image;
}

std::vector<std::span<const std::byte>> FileImage::Pieces() const {
  std::vector<std::span<const std::byte>> pieces = {
      std::as_bytes(std::span(header))};
  for (const at::Tensor& tensor : tensors) pieces.push_back(Bytes(tensor));
  return pieces;
}

int64_t FileImage::bytes() const {
  auto bytes = static_cast<int64_t>(header.size());
  for (const at::Tensor& tensor : tensors) {
    bytes += static_cast<int64_t>(tensor.nbytes());
  }
  return bytes;
}

StateReader::StateReader(StateFolder& folder, std::vector<File> files,
                         const Layout& layout, at::ScalarType dtype,
                         const OptimizerPtr& optimizer)
    : folder_(folder), files_(std::move(files)) {
  const std::vector<Parameter>& parameters = layout.parameters();
  state_.params.resize(parameters.size());
  state_.grads.resize(parameters.size());
  state_.buffers.resize(layout.buffers().size());
  state_.shared.resize(layout.shared().size());
  for (size_t p = 0; p < parameters.size(); ++p) {
    const std::vector<int64_t>& shape = parameters[p].shape;
    places_[parameters[p].name] = {&state_.params[p], shape, dtype, false};
    places_[GradName(parameters[p])] = {&state_.grads[p], shape, dtype, true};
  }
  for (size_t b = 0; b < state_.buffers.size(); ++b) {
    const Buffer& buffer = layout.buffers()[b];
    places_[buffer.name] = {&state_.buffers[b], buffer.shape,
                            StoredDtype(buffer.dtype, dtype), false};
  }
  for (size_t s = 0; s < state_.shared.size(); ++s) {
    const SharedTensor& shared = layout.shared()[s];
    places_[shared.name] = {&state_.shared[s], shared.shape, dtype, false};
  }
  places_[kGeneratorName] = {&generator_,
                             {static_cast<int64_t>(kGeneratorStateBytes)},
                             at::kByte,
                             false};
  has_optimizer_ = optimizer != nullptr;
  if (!has_optimizer_) return;
  optimizer_ = *optimizer;
  const std::string step = absl::StrCat("/", std::string(kStepSlot));
  for (size_t p = 0; p < parameters.size(); ++p) {
    const std::vector<std::string> names =
        SlotTensorNames(optimizer_, layout, p);
    optimizer_.slots[p].resize(names.size());
    for (size_t s = 0; s < names.size(); ++s) {
      Place place = {&optimizer_.slots[p][s], parameters[p].shape, dtype, true};
      if (names[s].ends_with(step)) {
        place.shape.clear();
        place.dtype = at::kFloat;
      }
      places_[SlotName(names[s])] = std::move(place);
    }
  }
}

absl::StatusOr<bool> StateReader::ReadNext() {
  if (next_ < files_.size()) {
    absl::Status read = ReadFile(files_[next_++]);
    if (!read.ok()) return read;
    if (next_ < files_.size()) return true;
  }
  absl::Status complete = Complete();
  if (!complete.ok()) return complete;
  return false;
}

absl::Status StateReader::ReadFile(const File& file) {
  const auto named = [&](const absl::Status& status) {
    return Unreadable(
        absl::StrCat("a file of the checkpoint, ", file.sha256,
                     ".safetensors: ", std::string(status.message())));
  };
  absl::StatusOr<int> blob = folder_.OpenBlob(file.sha256);
  if (!blob.ok()) return blob.status();
  Sha256 digest;
  absl::StatusOr<SafetensorsFile> opened = SafetensorsFile::Read(
      *blob,
      [&digest](std::span<const std::byte> bytes) { digest.Update(bytes); });
  absl::Status read = opened.status();
  if (read.ok()) {
    for (const SafetensorsEntry& entry : opened->entries()) {
      read = ReadTensor(*opened, entry);
      if (!read.ok()) break;
    }
  }
  if (read.ok() && digest.TakeHex() != file.sha256) {
    read = Unreadable("its bytes are not those of its name");
  }
  if (read.ok()) return read;
  if (absl::IsInternal(read)) {
    return Error(absl::StatusCode::kInternal, Reason::kStorageFailed,
                 absl::StrCat("the server cannot read blobs/", file.sha256,
                              ".safetensors in its state folder: ",
                              std::string(read.message())));
  }
  folder_.SetAsideIfDamaged(file.sha256);
  return named(read);
}

absl::Status StateReader::ReadTensor(SafetensorsFile& file,
                                     const SafetensorsEntry& entry) {
  const auto found = places_.find(entry.name);
  if (found == places_.end()) {
    return Unreadable(
        absl::StrCat("the network has no tensor ", Quote(entry.name)));
  }
  const Place& place = found->second;
  const at::ScalarType dtype = DtypeOf(entry.dtype);
  if (entry.shape != place.shape || dtype != place.dtype) {
    return Unreadable(
        absl::StrCat("tensor ", Quote(entry.name), " is ", DtypeName(dtype),
                     " ", FormatShape(entry.shape), ", expected ",
                     DtypeName(place.dtype), " ", FormatShape(place.shape)));
  }
  if (place.tensor->defined()) {
    return Unreadable(
        absl::StrCat("tensor ", Quote(entry.name), " is there twice"));
  }
  at::Tensor tensor = at::empty(entry.shape, dtype);
  absl::Status read = file.ReadNext(MutableBytes(tensor));
  if (read.ok()) *place.tensor = std::move(tensor);
  return read;
}

absl::Status StateReader::Complete() {
  for (const auto& [name, place] : places_) {
    if (!place.is_optional && !place.tensor->defined()) {
      return Unreadable(
          absl::StrCat("the checkpoint has no tensor ", Quote(name)));
    }
  }
  state_.rng_state.assign(static_cast<const char*>(generator_.const_data_ptr()),
                          generator_.nbytes());
  absl::StatusOr<at::Generator> generator =
      GeneratorFromState(std::as_bytes(std::span(state_.rng_state)));
  if (!generator.ok())
    return Unreadable(std::string(generator.status().message()));
  if (!has_optimizer_) return absl::OkStatus();
  for (std::vector<at::Tensor>& slots : optimizer_.slots) {
    const auto there = std::ranges::count_if(
        slots, [](const at::Tensor& slot) { return slot.defined(); });
    if (there == 0) slots.clear();
    if (there != 0 && there != std::ssize(slots)) {
      return Unreadable("the optimizer's state of a parameter is incomplete");
    }
  }
  state_.optimizer = std::make_shared<const OptimizerState>(optimizer_);
  return absl::OkStatus();
}

}  // namespace backboned
