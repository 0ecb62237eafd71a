// The server's folder for what outlives it, `--state-dir`.
//
//   format                      the version of all this: 1
//   starts                      how often it was opened
//   numbers                     the highest number of a record that was given
//                               when the newest one was removed
//   complete                    there if the last server saved all at its end
//   lock                        held by the server that uses the folder
//   blobs/SHA256.safetensors    tensors; named by content, so that equal ones
//                               share
//   records/SHA256.json         what is kept, and which blobs it has
//   aside/                      what could not be read; never deleted
//   usage.sqlite                of UsageLog
//
// Both kinds of files are named by the SHA-256 of their bytes, and appear
// whole: written beside under a name that begins with a dot, synced, and
// renamed. A record is written after its blobs and their folder are on the
// disk, and removed before them. So after a crash each record that is there is
// whole, and so are its blobs.

#ifndef BACKBONED_SERVER_CHECKPOINTS_STATE_FOLDER_H_
#define BACKBONED_SERVER_CHECKPOINTS_STATE_FOLDER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/descriptor.h"

namespace backboned {

// The folder. Thread-safe, as the file system is; but of two writers of the
// same blob each must finish before its record is written.
//
// Errors of the disk are kResourceExhausted if it is full, else kInternal, both
// with kStorageFailed; they name the file.
class StateFolder {
 public:
  // The bytes of a file, piece by piece.
  using Pieces = std::span<const std::span<const std::byte>>;

  // Opens the folder at `path`, which is there, and locks it. An empty one
  // becomes a state folder. Removes what a crash left half written.
  //
  // Returns kFailedPrecondition, which says what is wrong, if the server's user
  // cannot write there, another process uses it, or its format is newer.
  static absl::StatusOr<std::unique_ptr<StateFolder>> Open(
      const std::string& path);

  // Returns whether there is a blob of this name and size.
  bool HasBlob(std::string_view sha256, int64_t bytes) const;

  // Makes the blob whose bytes are `pieces`. It is on the disk once a later
  // WriteRecord ends.
  absl::Status WriteBlob(std::string_view sha256, Pieces pieces);

  // Opens a blob to read; the caller closes it. Returns kFailedPrecondition
  // (kCheckpointUnreadable) if it is not there.
  absl::StatusOr<int> OpenBlob(std::string_view sha256) const;

  // Removes a blob, if it is there, sooner or later.
  void RemoveBlob(std::string_view sha256);

  // Reads a blob once more, and moves it aside if it is not what its name says.
  // Returns whether it did.
  bool SetAsideIfDamaged(std::string_view sha256);

  // Makes a record, and returns its name. It, and all blobs before it, are on
  // the disk then.
  absl::StatusOr<std::string> WriteRecord(std::string_view text);

  // Removes a record. It would not be back after a crash then.
  absl::Status RemoveRecord(std::string_view sha256);

  // Moves a record aside that cannot be used; the log says `why`.
  void SetRecordAside(std::string_view sha256, std::string_view why);

  struct StoredRecord {
    std::string sha256;
    std::string text;
  };

  // Reads all records. Those that are not what their names say are set aside.
  absl::StatusOr<std::vector<StoredRecord>> ReadRecords();

  // Removes all blobs but those `kept`, unless something was ever set aside:
  // that may need them.
  absl::Status RemoveBlobsBut(const std::set<std::string>& kept);

  // The number of times that the folder was opened, this one among them.
  uint64_t starts() const { return starts_; }

  // The highest number that NoteNumber noted; 0: none.
  int64_t last_number() const { return last_number_; }
  absl::Status NoteNumber(int64_t number);

  // True if the last server called MarkComplete: the folder has all that it
  // had.
  bool is_complete() const { return is_complete_; }
  absl::Status MarkComplete();

 private:
  // A folder of equal files.
  struct Drawer {
    std::string name;    // `blobs`.
    std::string suffix;  // Of its files: `.safetensors`.
    Descriptor folder;
  };

  StateFolder(uint64_t starts, int64_t last_number, bool is_complete,
              Descriptor root, Descriptor lock, Drawer blobs, Drawer records,
              Drawer aside);

  static absl::StatusOr<Drawer> OpenDrawer(int root, const std::string& path,
                                           std::string name,
                                           std::string suffix);

  absl::Status Write(const Drawer& drawer, std::string_view sha256,
                     Pieces pieces);
  absl::Status Failed(std::string_view doing, const Drawer& drawer,
                      std::string_view file) const;
  absl::StatusOr<std::vector<std::string>> Names(const Drawer& drawer) const;
  void SetAside(const Drawer& drawer, std::string_view sha256,
                std::string_view why);
  void RemoveTemporaryFiles(const Drawer& drawer);

  const uint64_t starts_;
  const int64_t last_number_;
  const bool is_complete_;
  const Descriptor root_;
  const Descriptor lock_;
  const Drawer blobs_;
  const Drawer records_;
  const Drawer aside_;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_CHECKPOINTS_STATE_FOLDER_H_
