#include "server/checkpoints/checkpoint_store.h"

#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/time_util.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <limits>
#include <set>
#include <span>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/digest.h"
#include "base/errors.h"
#include "base/names.h"
#include "server/device/chores.h"

namespace backboned {
namespace {

using google::protobuf::util::TimeUtil;

constexpr int kRecordFormat = 1;

absl::StatusOr<std::string> TextOf(const v1::Record& record) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  std::string text;
  const auto written =
      google::protobuf::util::MessageToJsonString(record, &text, options);
  if (written.ok()) return text;
  return absl::InternalError(
      absl::StrCat("a record has no JSON: ", written.ToString()));
}

// Reads a record. Returns an error, which says why it cannot be used.
absl::StatusOr<v1::Record> RecordOf(const std::string& text) {
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  v1::Record record;
  const auto read =
      google::protobuf::util::JsonStringToMessage(text, &record, options);
  if (!read.ok()) {
    return absl::FailedPreconditionError("it is no record in JSON");
  }
  if (record.format() != kRecordFormat) {
    return absl::FailedPreconditionError(
        absl::StrCat("it has format ", record.format(), "; this server reads ",
                     kRecordFormat));
  }
  return record;
}

bool IsOf(const v1::Checkpoint& checkpoint, std::string_view owner,
          std::string_view name, int64_t number) {
  return checkpoint.owner() == owner && checkpoint.name() == name &&
         (number == 0 || checkpoint.number() == number);
}

// Returns whether one record may replace another: both are of one instance that
// lives, or checkpoints of one owner and name.
bool IsOfSame(const v1::Record& one, const v1::Record& other) {
  if (one.recovery() != other.recovery()) return false;
  const v1::Checkpoint& checkpoint = other.checkpoint();
  return one.recovery()
             ? one.checkpoint().instance().version().uid() ==
                   checkpoint.instance().version().uid()
             : IsOf(one.checkpoint(), checkpoint.owner(), checkpoint.name(),
                    /*number=*/0);
}

bool IsLiving(const v1::Record& record, std::string_view uid) {
  return record.recovery() &&
         record.checkpoint().instance().version().uid() == uid;
}

// Returns whether it is of an instance that died with its server.
bool IsEphemeral(const v1::Record& record) {
  return record.recovery() && record.checkpoint().instance().ephemeral();
}

// Sessions have no part of what outlives them.
Quotas WithoutSessions(Quotas quotas) {
  quotas.session = 1;
  return quotas;
}

std::string DigestOf(const FileImage& image) {
  Sha256 digest;
  for (const std::span<const std::byte> piece : image.Pieces()) {
    digest.Update(piece);
  }
  return digest.TakeHex();
}

}  // namespace

// A checkpoint under way: what it wrote goes with this object, unless it was
// published.
class CheckpointStore::Saving {
 public:
  Saving(CheckpointStore& store, v1::Record record,
         std::vector<SavedTensor> tensors, int keep,
         const std::function<absl::Status()>& check_wanted)
      : store_(store),
        record_(std::move(record)),
        keep_(keep),
        check_wanted_(check_wanted),
        files_(CutFiles(std::move(tensors))) {}
  Saving(const Saving&) = delete;
  Saving& operator=(const Saving&) = delete;
  ~Saving() {
    if (!is_published_) store_.Release(record_);
  }

  // Does a turn's work; returns false after the last one.
  absl::StatusOr<bool> Step() {
    if (next_ == 0) {
      absl::Status reserved = Reserve();
      if (!reserved.ok()) return reserved;
    }
    if (next_ < files_.size()) {
      absl::Status written = WriteFile(ImageOf(files_[next_++]));
      if (!written.ok()) return written;
      return true;
    }
    absl::Status wanted = check_wanted_ ? check_wanted_() : absl::OkStatus();
    if (!wanted.ok()) return wanted;
    absl::StatusOr<v1::Checkpoint> published =
        store_.Publish(record_, std::move(room_), keep_);
    if (!published.ok()) return published.status();
    is_published_ = true;
    *record_.mutable_checkpoint() = *std::move(published);
    return false;
  }

  v1::Checkpoint Take() { return std::move(*record_.mutable_checkpoint()); }

 private:
  absl::Status Reserve() {
    int64_t bytes = 0;
    for (const std::vector<SavedTensor>& file : files_) {
      bytes += ImageOf(file).bytes();
    }
    record_.mutable_checkpoint()->set_bytes(bytes);
    if (record_.recovery()) return absl::OkStatus();
    absl::StatusOr<Budget::Reservation> room =
        store_.room_.Reserve({record_.checkpoint().owner()}, bytes);
    if (room.ok()) room_ = *std::move(room);
    return room.status();
  }

  absl::Status WriteFile(const FileImage& image) {
    v1::CheckpointFile& file = *record_.add_files();
    file.set_sha256(DigestOf(image));
    file.set_bytes(image.bytes());
    store_.Hold(file.sha256());
    if (store_.folder_->HasBlob(file.sha256(), file.bytes())) {
      return absl::OkStatus();
    }
    return store_.folder_->WriteBlob(file.sha256(), image.Pieces());
  }

  CheckpointStore& store_;
  v1::Record record_;
  const int keep_;
  const std::function<absl::Status()>& check_wanted_;
  const std::vector<std::vector<SavedTensor>> files_;
  size_t next_ = 0;
  Budget::Reservation room_;
  bool is_published_ = false;
};

CheckpointStore::CheckpointStore(std::unique_ptr<StateFolder> folder,
                                 const Options& options, const Clock& clock)
    : folder_(std::move(folder)),
      room_({.name = "max-checkpoint-bytes",
             .limit = options.max_bytes > 0
                          ? options.max_bytes
                          : std::numeric_limits<int64_t>::max(),
             .quotas = WithoutSessions(options.quotas)}),
      disk_(SchedulerOptions(), clock) {}

absl::StatusOr<std::unique_ptr<CheckpointStore>> CheckpointStore::Open(
    const std::string& path, const Options& options, const Clock& clock) {
  absl::StatusOr<std::unique_ptr<StateFolder>> folder = StateFolder::Open(path);
  if (!folder.ok()) return folder.status();
  auto store = std::unique_ptr<CheckpointStore>(
      new CheckpointStore(*std::move(folder), options, clock));
  absl::Status read = store->ReadRecords();
  if (!read.ok()) return read;
  return store;
}

absl::Status CheckpointStore::ReadRecords() {
  {
    absl::MutexLock lock(&mutex_);
    last_number_ = folder_->last_number();
  }
  absl::StatusOr<std::vector<StateFolder::StoredRecord>> stored =
      folder_->ReadRecords();
  if (!stored.ok()) return stored.status();
  std::set<std::string> kept;
  for (const StateFolder::StoredRecord& one : *stored) {
    absl::StatusOr<v1::Record> record = RecordOf(one.text);
    if (!record.ok()) {
      folder_->SetRecordAside(one.sha256,
                              std::string(record.status().message()));
      continue;
    }
    absl::MutexLock lock(&mutex_);
    for (const v1::CheckpointFile& file : record->files()) {
      kept.insert(file.sha256());
      ++holds_[file.sha256()];
    }
    const int64_t number = record->checkpoint().number();
    last_number_ = std::max(last_number_, number);
    Entry entry = {.record = *std::move(record), .file = one.sha256};
    if (!entry.record.recovery()) {
      entry.room = room_.Take({entry.record.checkpoint().owner()},
                              entry.record.checkpoint().bytes());
    }
    entries_.insert_or_assign(number, std::move(entry));
  }
  absl::Status removed = folder_->RemoveBlobsBut(kept);
  if (!removed.ok()) return removed;
  return Remove([](const Entry& entry) { return IsEphemeral(entry.record); });
}

void CheckpointStore::Hold(const std::string& sha256) {
  absl::MutexLock lock(&mutex_);
  ++holds_[sha256];
}

void CheckpointStore::Release(const v1::Record& record) {
  absl::MutexLock lock(&mutex_);
  for (const v1::CheckpointFile& file : record.files()) {
    const auto hold = holds_.find(file.sha256());
    if (hold == holds_.end() || --hold->second > 0) continue;
    holds_.erase(hold);
    folder_->RemoveBlob(file.sha256());
  }
}

Task<absl::StatusOr<v1::Checkpoint>> CheckpointStore::Save(
    const DeviceWorker::Request& request, v1::Record record,
    std::vector<SavedTensor> tensors, int keep,
    const std::function<absl::Status()>& check_wanted) {
  Saving saving(*this, std::move(record), std::move(tensors), keep,
                check_wanted);
  const std::function<absl::StatusOr<bool>()> step = [&] {
    return saving.Step();
  };
  const absl::StatusOr<DeviceWorker::Times> done =
      co_await RunChore(disk_, request, step);
  CountSave(done.status());
  if (!done.ok()) co_return done.status();
  co_return saving.Take();
}

absl::StatusOr<v1::Checkpoint> CheckpointStore::Publish(
    v1::Record record, Budget::Reservation room, int keep) {
  v1::Checkpoint& checkpoint = *record.mutable_checkpoint();
  record.set_format(kRecordFormat);
  *checkpoint.mutable_create_time() =
      TimeUtil::NanosecondsToTimestamp(absl::ToUnixNanos(absl::Now()));
  {
    absl::MutexLock lock(&mutex_);
    checkpoint.set_number(++last_number_);
  }
  absl::StatusOr<std::string> text = TextOf(record);
  if (!text.ok()) return text.status();
  absl::StatusOr<std::string> file = folder_->WriteRecord(*text);
  if (!file.ok()) return file.status();
  std::vector<int64_t> others;
  {
    absl::MutexLock lock(&mutex_);
    entries_.insert_or_assign(checkpoint.number(),
                              Entry{.record = record,
                                    .file = *std::move(file),
                                    .room = std::move(room)});
    for (const auto& [number, entry] : entries_) {
      if (IsOfSame(entry.record, record)) {
        others.push_back(number);
      }
    }
  }
  if (std::ssize(others) > keep) {
    others.resize(others.size() - static_cast<size_t>(keep));
    absl::Status removed = Remove([&](const Entry& entry) {
      return std::ranges::binary_search(others,
                                        entry.record.checkpoint().number());
    });
    if (!removed.ok()) spdlog::warn("{}", std::string(removed.message()));
  }
  return checkpoint;
}

absl::StatusOr<CheckpointStore::Found> CheckpointStore::Find(
    std::string_view owner, std::string_view name, int64_t number) {
  absl::MutexLock lock(&mutex_);
  std::set<std::string> names;
  for (auto entry = entries_.rbegin(); entry != entries_.rend(); ++entry) {
    const v1::Record& record = entry->second.record;
    if (record.recovery() || record.checkpoint().owner() != owner) continue;
    if (IsOf(record.checkpoint(), owner, name, number)) {
      return HoldFilesOf(record);
    }
    names.insert(record.checkpoint().name());
  }
  if (names.contains(std::string(name))) {
    return Error(
        absl::StatusCode::kNotFound, Reason::kCheckpointNotFound,
        absl::StrCat("no checkpoint ", Quote(name), " has number ", number));
  }
  return UnknownName(Reason::kCheckpointNotFound, "checkpoint", name,
                     std::vector<std::string>(names.begin(), names.end()));
}

CheckpointStore::Found CheckpointStore::HoldFilesOf(const v1::Record& record) {
  for (const v1::CheckpointFile& file : record.files()) {
    ++holds_[file.sha256()];
  }
  const auto release = [this, record](const void*) { Release(record); };
  return {.record = record, .hold = std::shared_ptr<const void>(this, release)};
}

absl::StatusOr<CheckpointStore::Found> CheckpointStore::FindLiving(
    std::string_view uid) {
  absl::MutexLock lock(&mutex_);
  for (auto entry = entries_.rbegin(); entry != entries_.rend(); ++entry) {
    if (IsLiving(entry->second.record, uid)) {
      return HoldFilesOf(entry->second.record);
    }
  }
  return Error(absl::StatusCode::kFailedPrecondition,
               Reason::kCheckpointUnreadable,
               absl::StrCat("the state folder has no instance of uid ",
                            std::string(uid)));
}

Task<absl::Status> CheckpointStore::Rewrite(
    const DeviceWorker::Request& request, const Found& living,
    const v1::Instance& now,
    const std::function<absl::Status()>& check_wanted) {
  v1::Record record = living.record;
  v1::Instance& described = *record.mutable_checkpoint()->mutable_instance();
  *described.mutable_version() = now.version();
  *described.mutable_settings() = now.settings();
  if (now.has_rollback()) *described.mutable_rollback() = now.rollback();
  const DeviceWorker::Work write = [&] {
    absl::Status wanted = check_wanted();
    if (!wanted.ok()) return wanted;
    {
      absl::MutexLock lock(&mutex_);
      for (const v1::CheckpointFile& file : record.files()) {
        ++holds_[file.sha256()];
      }
    }
    absl::Status written = Publish(record, /*room=*/{}, /*keep=*/1).status();
    if (!written.ok()) Release(record);
    return written;
  };
  const absl::StatusOr<DeviceWorker::Times> done =
      co_await disk_.Run(request, write);
  CountSave(done.status());
  co_return done.status();
}

void CheckpointStore::CountSave(const absl::Status& ended) {
  if (ended.ok()) {
    ++saves_;
  } else if (ReasonOf(ended) == Reason::kStorageFailed) {
    ++refused_saves_;
  }
}

absl::Status CheckpointStore::NoteNumber() {
  absl::MutexLock note_lock(&note_mutex_);
  int64_t number;
  {
    absl::MutexLock lock(&mutex_);
    number = last_number_;
  }
  return folder_->NoteNumber(number);
}

absl::Status CheckpointStore::Remove(const IsMeant& is_meant) {
  std::vector<std::pair<int64_t, std::string>> meant;
  bool has_highest = false;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [number, entry] : entries_) {
      has_highest = is_meant(entry);
      if (has_highest) meant.emplace_back(number, entry.file);
    }
  }
  absl::Status noted;
  if (has_highest) noted = NoteNumber();
  for (const auto& [number, file] : meant) {
    absl::Status removed = folder_->RemoveRecord(file);
    if (!removed.ok()) return removed;
    Entries::node_type entry;
    {
      absl::MutexLock lock(&mutex_);
      entry = entries_.extract(number);
    }
    if (!entry.empty()) Release(entry.mapped().record);
  }
  if (!noted.ok()) noted = NoteNumber();  // Now there may be room.
  if (!noted.ok()) spdlog::warn("{}", std::string(noted.message()));
  return absl::OkStatus();
}

Task<absl::Status> CheckpointStore::RemoveOnDisk(
    const DeviceWorker::Request& request, const IsMeant& is_meant) {
  const DeviceWorker::Work remove = [&] { return Remove(is_meant); };
  DeviceWorker::Request unmetered = request;  // A disk is no device.
  unmetered.meter = nullptr;
  const absl::StatusOr<DeviceWorker::Times> done =
      co_await disk_.Run(unmetered, remove);
  co_return done.status();
}

Task<absl::Status> CheckpointStore::Delete(const DeviceWorker::Request& request,
                                           std::string_view owner,
                                           std::string_view name,
                                           int64_t number) {
  absl::Status found = Find(owner, name, number).status();
  if (!found.ok()) co_return found;
  const IsMeant is_meant = [&](const Entry& entry) {
    return !entry.record.recovery() &&
           IsOf(entry.record.checkpoint(), owner, name, number);
  };
  co_return co_await RemoveOnDisk(request, is_meant);
}

std::vector<v1::Checkpoint> CheckpointStore::List(
    const std::optional<std::string>& owner) const {
  std::vector<v1::Checkpoint> checkpoints;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [number, entry] : entries_) {
      const v1::Record& record = entry.record;
      if (record.recovery()) continue;
      if (owner.has_value() && record.checkpoint().owner() != *owner) continue;
      checkpoints.push_back(record.checkpoint());
    }
  }
  std::ranges::sort(checkpoints, {}, [](const v1::Checkpoint& checkpoint) {
    return std::tuple(std::string_view(checkpoint.owner()),
                      std::string_view(checkpoint.name()), checkpoint.number());
  });
  return checkpoints;
}

int64_t CheckpointStore::count() const {
  absl::MutexLock lock(&mutex_);
  return std::ranges::count_if(entries_, [](const auto& entry) {
    return !entry.second.record.recovery();
  });
}

std::vector<v1::Record> CheckpointStore::Living() const {
  std::map<std::string, v1::Record> newest;  // By uid.
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [number, entry] : entries_) {
      if (!entry.record.recovery() || IsEphemeral(entry.record)) continue;
      newest[entry.record.checkpoint().instance().version().uid()] =
          entry.record;
    }
  }
  std::vector<v1::Record> records;
  for (auto& [uid, record] : newest) records.push_back(std::move(record));
  return records;
}

Task<absl::Status> CheckpointStore::DeleteLiving(
    const DeviceWorker::Request& request, std::string_view uid) {
  const IsMeant is_meant = [&](const Entry& entry) {
    return IsLiving(entry.record, uid);
  };
  co_return co_await RemoveOnDisk(request, is_meant);
}

std::vector<StateReader::File> FilesOf(const v1::Record& record) {
  std::vector<StateReader::File> files;
  for (const v1::CheckpointFile& file : record.files()) {
    files.push_back({file.sha256(), file.bytes()});
  }
  return files;
}

absl::Status CheckpointStore::DropOlderThan(absl::Time time) {
  const google::protobuf::Timestamp oldest =
      TimeUtil::NanosecondsToTimestamp(absl::ToUnixNanos(time));
  return Remove([&](const Entry& entry) {
    return !entry.record.recovery() &&
           entry.record.checkpoint().create_time() < oldest;
  });
}

}  // namespace backboned
