// A SQLite database, and its statements.

#ifndef BACKBONED_SERVER_USAGE_DATABASE_H_
#define BACKBONED_SERVER_USAGE_DATABASE_H_

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace backboned {

// A connection. Errors are kDataLoss if the file is damaged or no database,
// else kInternal; their messages are SQLite's.
//
// Not thread-safe.
class Database {
 public:
  // Opens the file, which is made if there is none. Its name has no symbolic
  // link. Empty: a database in memory.
  static absl::StatusOr<Database> Open(const std::string& file);

  // Runs statements that return nothing.
  absl::Status Run(const std::string& sql);

  // Returns the number that a statement gives.
  absl::StatusOr<int64_t> Ask(const std::string& sql);

  sqlite3* get() const { return connection_.get(); }
  absl::Status Failed() const;  // Of the last call, which failed.

 private:
  struct Close {
    void operator()(sqlite3* connection) const { sqlite3_close(connection); }
  };

  std::unique_ptr<sqlite3, Close> connection_;
};

// A statement with parameters, numbered from 1, and columns, from 0. An error
// of its text or of a value is the next step's.
class Statement {
 public:
  Statement(Database& database, const std::string& sql);

  void Bind(int place, int64_t value);
  void Bind(int place, double value);
  void Bind(int place, std::string_view value);  // It stays until the step.

  // Returns whether there is another row.
  absl::StatusOr<bool> Step();

  // Takes the step of a statement without rows, which can be bound anew then.
  absl::Status Execute();

  int64_t Integer(int column) const;
  double Number(int column) const;
  std::string_view Text(int column) const;  // Until the next step.

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const {
      sqlite3_finalize(statement);
    }
  };

  Database& database_;
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_USAGE_DATABASE_H_
