#include "backbones/weights.h"

#include <ATen/ops/_upsample_bicubic2d_aa.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "backbones/dtypes.h"
#include "base/errors.h"

namespace backboned {
namespace {

constexpr size_t kListedKeys = 10;
constexpr int64_t kChunkBytes = int64_t{1} << 20;

// A tensor of a layout.
struct Slot {
  std::string name;
  std::vector<int64_t> shape;
  at::ScalarType dtype = at::kFloat;
  bool position_embedding = false;
};

// Returns the tensors of `layout` in the order of LoadPlan::targets.
std::vector<Slot> SlotsOf(const Layout& layout) {
  std::vector<Slot> slots;
  for (const Parameter& parameter : layout.parameters()) {
    slots.push_back({.name = parameter.name,
                     .shape = parameter.shape,
                     .position_embedding = parameter.position_embedding});
  }
  for (const Buffer& buffer : layout.buffers()) {
    slots.push_back(
        {.name = buffer.name, .shape = buffer.shape, .dtype = buffer.dtype});
  }
  return slots;
}

// A state-dict key: its slot, and its index among the slot's keys.
struct Key {
  size_t slot = 0;
  size_t rank = 0;
};

std::map<std::string, Key, std::less<>> KeysOf(const Layout& layout) {
  std::map<std::string, Key, std::less<>> keys;
  size_t slot = 0;
  for (const Parameter& parameter : layout.parameters()) {
    keys[parameter.name] = {.slot = slot};
    for (size_t i = 0; i < parameter.aliases.size(); ++i) {
      keys[parameter.aliases[i]] = {.slot = slot, .rank = i + 1};
    }
    ++slot;
  }
  for (const Buffer& buffer : layout.buffers()) {
    keys[buffer.name] = {.slot = slot++};
  }
  return keys;
}

// PyTorch accepts state dicts without this key too, since old ones lack it.
bool MayBeMissing(std::string_view name) {
  return name == "num_batches_tracked" ||
         name.ends_with(".num_batches_tracked");
}

bool Converts(at::ScalarType from, at::ScalarType to) {
  return from == to || (c10::isFloatingType(from) && c10::isFloatingType(to));
}

// Returns n for 1 + n^2 tokens; nothing for other numbers.
std::optional<int64_t> GridSide(int64_t tokens) {
  const auto side = static_cast<int64_t>(
      std::llround(std::sqrt(static_cast<double>(tokens - 1))));
  if (side < 1 || 1 + side * side != tokens) return std::nullopt;
  return side;
}

// Returns whether `shape` is that of a position embedding that can be resized
// for `slot`.
bool Resizes(const std::vector<int64_t>& shape, const Slot& slot) {
  return slot.position_embedding && shape.size() == 3 && shape[0] == 1 &&
         GridSide(shape[1]).has_value() && shape[2] == slot.shape[2];
}

// Assigns entries to slots, and collects those that do not fit.
class Planner {
 public:
  Planner(const Layout& layout, std::span<const SafetensorsEntry> entries,
          const LoadOptions& options)
      : options_(options),
        slots_(SlotsOf(layout)),
        parameters_(layout.parameters().size()),
        keys_(KeysOf(layout)),
        entries_(entries),
        chosen_(slots_.size()) {
    plan_.targets.resize(entries.size());
  }

  void PlanByName() {
    std::vector<size_t> ranks(slots_.size());
    for (size_t i = 0; i < entries_.size(); ++i) {
      const auto found = keys_.find(entries_[i].name);
      if (found == keys_.end()) {
        plan_.unexpected.push_back(entries_[i].name);
        continue;
      }
      const Key& key = found->second;
      Check(entries_[i], slots_[key.slot]);
      if (chosen_[key.slot].has_value() && ranks[key.slot] > key.rank) continue;
      chosen_[key.slot] = i;
      ranks[key.slot] = key.rank;
    }
  }

  void PlanByOrder() {
    for (size_t i = 0; i < entries_.size(); ++i) {
      if (i >= slots_.size()) {
        plan_.unexpected.push_back(entries_[i].name);
        continue;
      }
      Check(entries_[i], slots_[i]);
      chosen_[i] = i;
    }
    // A file with only the parameters is complete.
    if (entries_.size() == parameters_) buffers_optional_ = true;
  }

  absl::StatusOr<LoadPlan> Finish() {
    for (size_t slot = 0; slot < slots_.size(); ++slot) {
      if (chosen_[slot].has_value()) {
        plan_.targets[*chosen_[slot]] = slot;
      } else if (!MayBeMissing(slots_[slot].name) &&
                 !(buffers_optional_ && slot >= parameters_)) {
        plan_.missing.push_back(slots_[slot].name);
      }
    }
    if (!options_.partial) {
      for (const std::string& key : plan_.missing) {
        Complain(absl::StrCat(Quote(key), " is missing"));
      }
      for (const std::string& key : plan_.unexpected) {
        Complain(absl::StrCat(Quote(key), " is unexpected"));
      }
    }
    if (complaints_ == 0) return std::move(plan_);
    return Error(
        absl::StatusCode::kInvalidArgument,
        reason_.value_or(Reason::kInvalidOption),
        absl::StrCat(complaints_, complaints_ == 1 ? " key does" : " keys do",
                     " not fit: ", absl::StrJoin(listed_, "; "),
                     complaints_ > kListedKeys ? "; ..." : ""));
  }

 private:
  void Check(const SafetensorsEntry& entry, const Slot& slot) {
    const bool resizes = Resizes(entry.shape, slot);
    if (entry.shape != slot.shape &&
        !(resizes && options_.resize_position_embedding)) {
      if (!reason_) reason_ = Reason::kShapeMismatch;
      Complain(absl::StrCat(Quote(entry.name), " is ", FormatShape(entry.shape),
                            ", expected ", FormatShape(slot.shape),
                            resizes ? " (of another image size: set "
                                      "resize_position_embedding)"
                                    : ""));
    } else if (!Converts(DtypeOf(entry.dtype), slot.dtype)) {
      if (!reason_) reason_ = Reason::kDtypeMismatch;
      Complain(absl::StrCat(Quote(entry.name), " is ",
                            c10::toString(DtypeOf(entry.dtype)), ", expected ",
                            c10::toString(slot.dtype)));
    }
  }

  void Complain(std::string complaint) {
    if (++complaints_ <= kListedKeys) listed_.push_back(std::move(complaint));
  }

  LoadOptions options_;
  std::vector<Slot> slots_;
  size_t parameters_;
  std::map<std::string, Key, std::less<>> keys_;
  std::span<const SafetensorsEntry> entries_;
  std::vector<std::optional<size_t>> chosen_;  // The entry of each slot.
  bool buffers_optional_ = false;
  LoadPlan plan_;
  std::optional<Reason> reason_;
  size_t complaints_ = 0;
  std::vector<std::string> listed_;  // The first ones.
};

std::span<std::byte> BytesOf(const at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()};
}

// Reads the next tensor of `file` piece by piece, into `target` if there is
// one, with its own dtype.
absl::Status ReadPieces(const SafetensorsEntry& entry, SafetensorsFile& file,
                        const at::Tensor& target) {
  const int64_t size = ElementBytes(entry.dtype);
  const int64_t elements = (entry.end - entry.begin) / size;
  const int64_t step = std::min(elements, kChunkBytes / size);
  const at::Tensor piece = at::empty({step}, DtypeOf(entry.dtype));
  for (int64_t begin = 0; begin < elements; begin += step) {
    const at::Tensor part =
        piece.narrow(0, 0, std::min(step, elements - begin));
    absl::Status status = file.ReadNext(BytesOf(part));
    if (!status.ok()) return status;
    if (target.defined()) {
      target.view({-1}).narrow(0, begin, part.numel()).copy_(part);
    }
  }
  return absl::OkStatus();
}

// Returns a loaded tensor in the shape and dtype of the one that it replaces;
// only position embeddings differ in these.
at::Tensor Fitted(const at::Tensor& loaded, const at::Tensor& place) {
  if (loaded.sizes() == place.sizes()) return loaded;
  return ResizePositionEmbedding(loaded, GridSide(place.size(1)).value())
      .to(place.scalar_type());
}

}  // namespace

absl::StatusOr<LoadPlan> PlanLoad(const Layout& layout,
                                  std::span<const SafetensorsEntry> entries,
                                  const LoadOptions& options) {
  Planner planner(layout, entries, options);
  if (options.by == LoadBy::kName) {
    planner.PlanByName();
  } else {
    planner.PlanByOrder();
  }
  return planner.Finish();
}

at::Tensor ResizePositionEmbedding(const at::Tensor& embedding, int64_t side) {
  const int64_t tokens = embedding.size(1);
  const int64_t old_side = GridSide(tokens).value();
  const at::Tensor grid = embedding.narrow(1, 1, tokens - 1)
                              .to(at::kFloat)
                              .reshape({1, old_side, old_side, -1})
                              .permute({0, 3, 1, 2});
  const at::Tensor resized =
      at::_upsample_bicubic2d_aa(grid, {side, side}, /*align_corners=*/false);
  const at::Tensor patches = resized.permute({0, 2, 3, 1})
                                 .reshape({1, side * side, embedding.size(2)});
  return at::cat({embedding.narrow(1, 0, 1).to(at::kFloat), patches}, 1);
}

absl::Status LoadNext(size_t i, const LoadPlan& plan, SafetensorsFile& file,
                      State& state) {
  const SafetensorsEntry& entry = file.entries()[i];
  at::Tensor fresh;
  at::Tensor* place = nullptr;
  if (plan.targets[i].has_value()) {
    const size_t slot = *plan.targets[i];
    const size_t parameters = state.params.size();
    place = slot < parameters ? &state.params[slot]
                              : &state.buffers[slot - parameters];
    const bool fits = at::IntArrayRef(entry.shape) == place->sizes();
    fresh = at::empty(entry.shape, fits ? place->scalar_type() : at::kFloat);
  }
  absl::Status status =
      fresh.defined() && fresh.scalar_type() == DtypeOf(entry.dtype)
          ? file.ReadNext(BytesOf(fresh))
          : ReadPieces(entry, file, fresh);
  if (status.ok() && place != nullptr) *place = Fitted(fresh, *place);
  return status;
}

}  // namespace backboned
