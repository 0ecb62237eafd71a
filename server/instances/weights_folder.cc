#include "server/instances/weights_folder.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/names.h"

namespace backboned {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSuffix = ".safetensors";

absl::Status NameWeights(std::string_view name, const absl::Status& status) {
  return PrefixMessage(absl::StrCat("weights ", Quote(name)), status,
                       Reason::kWeightsUnreadable);
}

absl::Status NotFound(std::string_view message) {
  return Error(absl::StatusCode::kNotFound, Reason::kWeightsNotFound, message);
}

}  // namespace

absl::StatusOr<bool> PreparedWeights::LoadNext(State& state) {
  if (next_ == plan_.targets.size()) return false;
  absl::Status loaded = backboned::LoadNext(next_, plan_, file_, state);
  if (!loaded.ok()) return NameWeights(name_, loaded);
  return ++next_ < plan_.targets.size();
}

absl::StatusOr<WeightsFolder> WeightsFolder::Open(const std::string& path) {
  std::error_code error;
  WeightsFolder folder;
  folder.path_ = fs::canonical(path, error).string();
  if (!error) fs::directory_iterator(folder.path_, error);
  if (!error) return folder;
  return InvalidOption(absl::StrCat(
      "--weights-dir ", path, " is no readable folder: ", error.message()));
}

absl::StatusOr<std::vector<std::string>> WeightsFolder::Names() const {
  std::vector<std::string> names;
  if (path_.empty()) return names;
  std::error_code error;
  for (fs::directory_iterator file(path_, error), end; !error && file != end;
       file.increment(error)) {
    std::string name = file->path().filename().string();
    if (!name.ends_with(kSuffix)) continue;
    name.resize(name.size() - kSuffix.size());
    if (CheckName(name).ok()) names.push_back(std::move(name));
  }
  if (error) {
    return Error(absl::StatusCode::kFailedPrecondition,
                 Reason::kWeightsUnreadable,
                 absl::StrCat("the server cannot read --weights-dir: ",
                              error.message()));
  }
  std::ranges::sort(names);
  return names;
}

absl::StatusOr<int> WeightsFolder::OpenFile(std::string_view name) const {
  if (absl::Status valid = CheckName(name); !valid.ok()) return valid;
  if (path_.empty()) {
    return NotFound(absl::StrCat("no weights ", Quote(name),
                                 ": the server runs without --weights-dir"));
  }
  absl::StatusOr<std::vector<std::string>> names = Names();
  if (!names.ok()) return names.status();
  const auto found = std::ranges::find(*names, name);
  if (found == names->end() && names->empty()) {
    return NotFound(absl::StrCat("no weights ", Quote(name),
                                 ": the server's --weights-dir is empty"));
  }
  if (found == names->end()) {
    return UnknownName(Reason::kWeightsNotFound, "weights file", name, *names);
  }
  const std::string path =
      absl::StrCat(path_, "/", *found, std::string(kSuffix));
  // Does not block, since a named pipe would make it wait for a writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd >= 0) return fd;
  return Error(
      absl::StatusCode::kFailedPrecondition, Reason::kWeightsUnreadable,
      absl::StrCat("weights ", Quote(name),
                   ": cannot be opened: ", std::string(std::strerror(errno))));
}

absl::StatusOr<PreparedWeights> WeightsFolder::Prepare(
    const WeightsOptions& options, const Layout& layout) const {
  absl::StatusOr<int> fd = OpenFile(options.name);
  if (!fd.ok()) return fd.status();
  auto hash = std::make_shared<Sha256>();
  absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Read(
      *fd, [hash](std::span<const std::byte> bytes) { hash->Update(bytes); });
  if (!file.ok()) return NameWeights(options.name, file.status());
  absl::StatusOr<LoadPlan> plan =
      PlanLoad(layout, file->entries(), options.load);
  if (!plan.ok()) return NameWeights(options.name, plan.status());
  return PreparedWeights(options.name, *std::move(file), *std::move(plan),
                         std::move(hash));
}

}  // namespace backboned
