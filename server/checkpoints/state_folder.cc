#include "server/checkpoints/state_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/errors.h"
#include "base/random_id.h"

namespace backboned {
namespace {

constexpr uint64_t kFolderFormat = 1;
constexpr mode_t kFolderMode = 0700;
constexpr mode_t kFileMode = 0600;
constexpr char kFormatFile[] = "format";
constexpr char kStartsFile[] = "starts";
constexpr char kNumbersFile[] = "numbers";
constexpr char kCompleteFile[] = "complete";

// The most bytes of a record: those of the longest patterns and groups that an
// instance may have, several times.
constexpr int64_t kMaxRecordBytes = int64_t{16} << 20;

absl::Status Unusable(const std::string& path, std::string_view why) {
  return absl::FailedPreconditionError(
      absl::StrCat("--state-dir ", path, " ", std::string(why)));
}

bool WriteAll(int file, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = write(file, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return true;
}

// Reads a file. Returns kNotFound if there is none, kInternal if it cannot be
// read, kOutOfRange if it is no regular file or has more bytes than `most`.
absl::StatusOr<std::string> ReadAll(int folder, const std::string& name,
                                    int64_t most) {
  const auto failed = [] { return absl::InternalError(std::strerror(errno)); };
  const Descriptor file(openat(folder, name.c_str(),
                               O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (file.get() < 0 && errno == ENOENT) return absl::NotFoundError("");
  if (file.get() < 0 && errno == ELOOP) return absl::OutOfRangeError("");
  struct stat about = {};
  if (file.get() < 0 || fstat(file.get(), &about) != 0) return failed();
  if (!S_ISREG(about.st_mode) || about.st_size > most) {
    return absl::OutOfRangeError("");
  }
  std::string text(static_cast<size_t>(about.st_size), '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t count =
        read(file.get(), text.data() + done, text.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return failed();
    if (count == 0) return absl::OutOfRangeError("");  // It was cut short.
    done += static_cast<size_t>(count);
  }
  return text;
}

// Gives a small file this content: at once, by a file whose name begins with a
// dot. The folder is synced later. Returns false, with errno, if it cannot.
bool ReplaceSmall(int folder, const std::string& name, std::string_view text) {
  const std::string made = absl::StrCat(".", name);
  const Descriptor file(openat(folder, made.c_str(),
                               O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
                               kFileMode));
  if (file.get() >= 0 && WriteAll(file.get(), std::as_bytes(std::span(text))) &&
      fsync(file.get()) == 0 &&
      renameat(folder, made.c_str(), folder, name.c_str()) == 0) {
    return true;
  }
  const int error = errno;
  unlinkat(folder, made.c_str(), 0);
  errno = error;
  return false;
}

// Reads the number in a small file; 0 if there is none.
absl::StatusOr<uint64_t> ReadNumber(int root, const std::string& path,
                                    const std::string& name) {
  const absl::StatusOr<std::string> text = ReadAll(root, name, /*most=*/64);
  if (absl::IsNotFound(text.status())) return uint64_t{0};
  if (absl::IsInternal(text.status())) {
    return Unusable(
        path, absl::StrCat("has a file `", name, "` that cannot be read: ",
                           std::string(text.status().message())));
  }
  uint64_t number = 0;
  if (text.ok() && absl::SimpleAtoi(*text, &number) && number > 0) {
    return number;
  }
  return Unusable(path,
                  absl::StrCat("has a file `", name, "` that has no number"));
}

std::string HexDigest(std::string_view text) {
  Sha256 digest;
  digest.Update(std::as_bytes(std::span(text)));
  return digest.TakeHex();
}

std::string Stem(const std::string& name, const std::string& suffix) {
  return name.substr(0, name.size() - suffix.size());
}

// Checks the folder's format, and gives it one if it has none.
absl::Status CheckFormat(int root, const std::string& path) {
  const absl::StatusOr<uint64_t> format = ReadNumber(root, path, kFormatFile);
  if (!format.ok()) return format.status();
  if (*format > kFolderFormat) {
    return Unusable(path, absl::StrCat("has format ", *format,
                                       ", of a newer server; this one reads ",
                                       kFolderFormat));
  }
  if (*format > 0 ||
      ReplaceSmall(root, kFormatFile, absl::StrCat(kFolderFormat, "\n"))) {
    return absl::OkStatus();
  }
  return Unusable(path, absl::StrCat("cannot be written: ",
                                     std::string(std::strerror(errno))));
}

// Counts one more opening of the folder, and returns the count. Call this under
// the lock.
absl::StatusOr<uint64_t> CountStart(int root, const std::string& path) {
  absl::StatusOr<uint64_t> starts = ReadNumber(root, path, kStartsFile);
  if (!starts.ok()) return starts;
  ++*starts;
  if (ReplaceSmall(root, kStartsFile, absl::StrCat(*starts, "\n"))) {
    return starts;
  }
  return Unusable(path, absl::StrCat("cannot be written: ",
                                     std::string(std::strerror(errno))));
}

absl::StatusOr<Descriptor> Lock(int root, const std::string& path) {
  Descriptor lock(
      openat(root, "lock", O_RDWR | O_CREAT | O_CLOEXEC, kFileMode));
  if (lock.get() < 0) {
    return Unusable(
        path, absl::StrCat("is no folder in which user ", geteuid(),
                           " can write: ", std::string(std::strerror(errno))));
  }
  if (flock(lock.get(), LOCK_EX | LOCK_NB) == 0) return lock;
  return Unusable(path, errno == EWOULDBLOCK
                            ? "is used by another server"
                            : absl::StrCat("cannot be locked: ",
                                           std::string(std::strerror(errno))));
}

}  // namespace

StateFolder::StateFolder(uint64_t starts, int64_t last_number, bool is_complete,
                         Descriptor root, Descriptor lock, Drawer blobs,
                         Drawer records, Drawer aside)
    : starts_(starts),
      last_number_(last_number),
      is_complete_(is_complete),
      root_(std::move(root)),
      lock_(std::move(lock)),
      blobs_(std::move(blobs)),
      records_(std::move(records)),
      aside_(std::move(aside)) {}

absl::StatusOr<std::unique_ptr<StateFolder>> StateFolder::Open(
    const std::string& path) {
  Descriptor root(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (root.get() < 0) {
    return Unusable(
        path, absl::StrCat("is no folder in which user ", geteuid(),
                           " can write: ", std::string(std::strerror(errno))));
  }
  absl::StatusOr<Descriptor> lock = Lock(root.get(), path);
  if (!lock.ok()) return lock.status();
  absl::Status format = CheckFormat(root.get(), path);
  if (!format.ok()) return format;
  std::vector<Drawer> drawers;
  for (const auto& [name, suffix] :
       std::to_array<std::pair<const char*, const char*>>(
           {{"blobs", ".safetensors"}, {"records", ".json"}, {"aside", ""}})) {
    absl::StatusOr<Drawer> drawer = OpenDrawer(root.get(), path, name, suffix);
    if (!drawer.ok()) return drawer.status();
    drawers.push_back(*std::move(drawer));
  }
  const absl::StatusOr<uint64_t> starts = CountStart(root.get(), path);
  if (!starts.ok()) return starts.status();
  const absl::StatusOr<uint64_t> number =
      ReadNumber(root.get(), path, kNumbersFile);
  if (!number.ok()) return number.status();
  const bool is_complete = unlinkat(root.get(), kCompleteFile, 0) == 0;
  if (fsync(root.get()) != 0) {
    return Unusable(path, absl::StrCat("cannot be synced: ",
                                       std::string(std::strerror(errno))));
  }
  auto folder = std::unique_ptr<StateFolder>(
      new StateFolder(*starts, static_cast<int64_t>(*number), is_complete,
                      std::move(root), *std::move(lock), std::move(drawers[0]),
                      std::move(drawers[1]), std::move(drawers[2])));
  folder->RemoveTemporaryFiles(folder->blobs_);
  folder->RemoveTemporaryFiles(folder->records_);
  return folder;
}

absl::StatusOr<StateFolder::Drawer> StateFolder::OpenDrawer(
    int root, const std::string& path, std::string name, std::string suffix) {
  const auto unusable = [&](std::string_view why) {
    return Unusable(absl::StrCat(path, "/", name), why);
  };
  if (mkdirat(root, name.c_str(), kFolderMode) != 0 && errno != EEXIST) {
    return unusable(
        absl::StrCat("cannot be made: ", std::string(std::strerror(errno))));
  }
  Descriptor folder(openat(root, name.c_str(),
                           O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat about = {};
  if (folder.get() < 0 || fstat(folder.get(), &about) != 0) {
    return unusable(
        absl::StrCat("cannot be opened: ", std::string(std::strerror(errno))));
  }
  if (about.st_uid != geteuid()) {
    return unusable(absl::StrCat("is owned by user ", about.st_uid,
                                 ", expected ", geteuid()));
  }
  if (fchmod(folder.get(), kFolderMode) != 0) {
    return unusable(absl::StrCat("cannot be made private: ",
                                 std::string(std::strerror(errno))));
  }
  return Drawer{.name = std::move(name),
                .suffix = std::move(suffix),
                .folder = std::move(folder)};
}

absl::Status StateFolder::Failed(std::string_view doing, const Drawer& drawer,
                                 std::string_view file) const {
  const bool is_full = errno == ENOSPC || errno == EDQUOT;
  return Error(
      is_full ? absl::StatusCode::kResourceExhausted
              : absl::StatusCode::kInternal,
      Reason::kStorageFailed,
      absl::StrCat("the server cannot ", std::string(doing), " ", drawer.name,
                   "/", std::string(file), " in its state folder: ",
                   std::string(std::strerror(errno))));
}

absl::Status StateFolder::NoteNumber(int64_t number) {
  if (ReplaceSmall(root_.get(), kNumbersFile, absl::StrCat(number, "\n")) &&
      fsync(root_.get()) == 0) {
    return absl::OkStatus();
  }
  return absl::InternalError(absl::StrCat(
      "cannot write `numbers` in --state-dir: ", std::strerror(errno)));
}

absl::Status StateFolder::MarkComplete() {
  const Descriptor file(openat(root_.get(), kCompleteFile,
                               O_WRONLY | O_CREAT | O_CLOEXEC, kFileMode));
  if (file.get() >= 0 && fsync(root_.get()) == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(
      "cannot make `complete` in --state-dir: ", std::strerror(errno)));
}

bool StateFolder::HasBlob(std::string_view sha256, int64_t bytes) const {
  struct stat about = {};
  const std::string name = absl::StrCat(std::string(sha256), blobs_.suffix);
  return fstatat(blobs_.folder.get(), name.c_str(), &about,
                 AT_SYMLINK_NOFOLLOW) == 0 &&
         S_ISREG(about.st_mode) && about.st_size == bytes;
}

absl::Status StateFolder::Write(const Drawer& drawer, std::string_view sha256,
                                Pieces pieces) {
  const std::string name = absl::StrCat(std::string(sha256), drawer.suffix);
  const std::string made = absl::StrCat(".", RandomId());
  const int folder = drawer.folder.get();
  const Descriptor file(openat(folder, made.c_str(),
                               O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
                               kFileMode));
  if (file.get() < 0) return Failed("write", drawer, name);
  const bool is_written =
      std::ranges::all_of(pieces,
                          [&](std::span<const std::byte> piece) {
                            return WriteAll(file.get(), piece);
                          }) &&
      fsync(file.get()) == 0 &&
      renameat(folder, made.c_str(), folder, name.c_str()) == 0;
  if (is_written) return absl::OkStatus();
  absl::Status failed = Failed("write", drawer, name);
  unlinkat(folder, made.c_str(), 0);
  return failed;
}

absl::Status StateFolder::WriteBlob(std::string_view sha256, Pieces pieces) {
  return Write(blobs_, sha256, pieces);
}

absl::StatusOr<int> StateFolder::OpenBlob(std::string_view sha256) const {
  const std::string name = absl::StrCat(std::string(sha256), blobs_.suffix);
  const int blob = openat(blobs_.folder.get(), name.c_str(),
                          O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (blob >= 0) return blob;
  if (errno != ENOENT && errno != ELOOP) return Failed("read", blobs_, name);
  return Error(
      absl::StatusCode::kFailedPrecondition, Reason::kCheckpointUnreadable,
      absl::StrCat("the file ", name,
                   " cannot be opened: ", std::string(std::strerror(errno))));
}

void StateFolder::RemoveBlob(std::string_view sha256) {
  const std::string name = absl::StrCat(std::string(sha256), blobs_.suffix);
  if (unlinkat(blobs_.folder.get(), name.c_str(), 0) != 0 && errno != ENOENT) {
    spdlog::warn("cannot remove blobs/{} of --state-dir: {}", name,
                 std::strerror(errno));
  }
}

bool StateFolder::SetAsideIfDamaged(std::string_view sha256) {
  const absl::StatusOr<int> blob = OpenBlob(sha256);
  if (!blob.ok()) return false;
  const Descriptor file(*blob);
  Sha256 digest;
  std::vector<std::byte> bytes(size_t{1} << 20);
  while (true) {
    const ssize_t count = read(file.get(), bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    if (count == 0) break;
    digest.Update(std::span(bytes).first(static_cast<size_t>(count)));
  }
  if (digest.TakeHex() == sha256) return false;
  SetAside(blobs_, sha256, "its bytes are not those of its name");
  return true;
}

absl::StatusOr<std::string> StateFolder::WriteRecord(std::string_view text) {
  const std::string name = HexDigest(text);
  if (fsync(blobs_.folder.get()) != 0) return Failed("sync", blobs_, "");
  const std::span<const std::byte> piece = std::as_bytes(std::span(text));
  absl::Status written = Write(records_, name, std::span(&piece, 1));
  if (!written.ok()) return written;
  if (fsync(records_.folder.get()) == 0) return name;
  written = Failed("sync", records_, "");
  RemoveRecord(name).IgnoreError();
  return written;
}

absl::Status StateFolder::RemoveRecord(std::string_view sha256) {
  const std::string name = absl::StrCat(std::string(sha256), records_.suffix);
  const int folder = records_.folder.get();
  if (unlinkat(folder, name.c_str(), 0) != 0 && errno != ENOENT) {
    return Failed("remove", records_, name);
  }
  if (fsync(folder) != 0) return Failed("remove", records_, name);
  return absl::OkStatus();
}

void StateFolder::SetRecordAside(std::string_view sha256,
                                 std::string_view why) {
  SetAside(records_, sha256, why);
}

void StateFolder::SetAside(const Drawer& drawer, std::string_view sha256,
                           std::string_view why) {
  const std::string name = absl::StrCat(std::string(sha256), drawer.suffix);
  // One of the same name may lie there.
  const std::string moved = absl::StrCat(name, ".", RandomId().substr(0, 8));
  const bool is_aside = renameat(drawer.folder.get(), name.c_str(),
                                 aside_.folder.get(), moved.c_str()) == 0 &&
                        fsync(aside_.folder.get()) == 0;
  spdlog::warn("set {}/{} of --state-dir aside{}: {}", drawer.name, name,
               is_aside ? "" : ", in vain", std::string(why));
}

absl::StatusOr<std::vector<std::string>> StateFolder::Names(
    const Drawer& drawer) const {
  // A descriptor of its own, since reading moves it.
  const int fd =
      openat(drawer.folder.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* const stream = fd < 0 ? nullptr : fdopendir(fd);
  if (stream == nullptr) return Failed("list", drawer, "");
  std::vector<std::string> names;
  while (const dirent* const entry = readdir(stream)) {
    names.emplace_back(entry->d_name);
  }
  closedir(stream);
  std::erase_if(names, [](const std::string& name) {
    return name == "." || name == "..";
  });
  std::ranges::sort(names);
  return names;
}

void StateFolder::RemoveTemporaryFiles(const Drawer& drawer) {
  const absl::StatusOr<std::vector<std::string>> names = Names(drawer);
  if (!names.ok()) return;  // Reading them later says why.
  for (const std::string& name : *names) {
    if (name.starts_with('.')) {
      unlinkat(drawer.folder.get(), name.c_str(), 0);
    }
  }
}

absl::StatusOr<std::vector<StateFolder::StoredRecord>>
StateFolder::ReadRecords() {
  absl::StatusOr<std::vector<std::string>> names = Names(records_);
  if (!names.ok()) return names.status();
  std::vector<StoredRecord> records;
  for (const std::string& name : *names) {
    if (!name.ends_with(records_.suffix)) {
      spdlog::warn("records/{} of --state-dir is no record", name);
      continue;
    }
    const std::string stem = Stem(name, records_.suffix);
    absl::StatusOr<std::string> text =
        ReadAll(records_.folder.get(), name, kMaxRecordBytes);
    if (absl::IsInternal(text.status())) {
      return Failed("read", records_, name);
    }
    if (!text.ok() || HexDigest(*text) != stem) {
      SetRecordAside(stem, "its bytes are not those of its name");
      continue;
    }
    records.push_back({stem, *std::move(text)});
  }
  return records;
}

absl::Status StateFolder::RemoveBlobsBut(const std::set<std::string>& kept) {
  const absl::StatusOr<std::vector<std::string>> aside = Names(aside_);
  if (!aside.ok()) return aside.status();
  if (!aside->empty()) return absl::OkStatus();
  const absl::StatusOr<std::vector<std::string>> names = Names(blobs_);
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    if (!name.ends_with(blobs_.suffix)) continue;
    const std::string stem = Stem(name, blobs_.suffix);
    if (!kept.contains(stem)) RemoveBlob(stem);
  }
  return absl::OkStatus();
}

}  // namespace backboned
