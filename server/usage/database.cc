#include "server/usage/database.h"

#include "absl/strings/str_cat.h"

namespace backboned {

absl::StatusOr<Database> Database::Open(const std::string& file) {
  sqlite3* connection = nullptr;
  const int result = sqlite3_open_v2(
      file.empty() ? ":memory:" : file.c_str(), &connection,
      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOFOLLOW,
      /*zVfs=*/nullptr);
  Database database;
  database.connection_.reset(connection);
  if (result != SQLITE_OK) return database.Failed();
  // Others, who look at the file by hand, may have locked it.
  sqlite3_busy_timeout(connection, /*ms=*/5000);
  return database;
}

absl::Status Database::Failed() const {
  const int code = sqlite3_errcode(get());
  const std::string message = sqlite3_errmsg(get());
  return code == SQLITE_CORRUPT || code == SQLITE_NOTADB
             ? absl::DataLossError(message)
             : absl::InternalError(message);
}

absl::Status Database::Run(const std::string& sql) {
  return sqlite3_exec(get(), sql.c_str(), nullptr, nullptr, nullptr) ==
                 SQLITE_OK
             ? absl::OkStatus()
             : Failed();
}

absl::StatusOr<int64_t> Database::Ask(const std::string& sql) {
  Statement statement(*this, sql);
  const absl::StatusOr<bool> has_row = statement.Step();
  if (!has_row.ok()) return has_row.status();
  return *has_row ? statement.Integer(0) : 0;
}

Statement::Statement(Database& database, const std::string& sql)
    : database_(database) {
  sqlite3_stmt* statement = nullptr;
  sqlite3_prepare_v2(database.get(), sql.c_str(), /*nByte=*/-1, &statement,
                     /*pzTail=*/nullptr);
  statement_.reset(statement);
}

void Statement::Bind(int place, int64_t value) {
  sqlite3_bind_int64(statement_.get(), place, value);
}

void Statement::Bind(int place, double value) {
  sqlite3_bind_double(statement_.get(), place, value);
}

void Statement::Bind(int place, std::string_view value) {
  // A text without memory would be NULL.
  sqlite3_bind_text(statement_.get(), place, value.empty() ? "" : value.data(),
                    static_cast<int>(value.size()), SQLITE_STATIC);
}

absl::StatusOr<bool> Statement::Step() {
  if (statement_ == nullptr) return database_.Failed();
  const int result = sqlite3_step(statement_.get());
  if (result == SQLITE_ROW) return true;
  if (result == SQLITE_DONE) return false;
  return database_.Failed();
}

absl::Status Statement::Execute() {
  const absl::StatusOr<bool> stepped = Step();
  if (statement_ != nullptr) sqlite3_reset(statement_.get());
  return stepped.status();
}

int64_t Statement::Integer(int column) const {
  return sqlite3_column_int64(statement_.get(), column);
}

double Statement::Number(int column) const {
  return sqlite3_column_double(statement_.get(), column);
}

std::string_view Statement::Text(int column) const {
  const auto* const text = reinterpret_cast<const char*>(
      sqlite3_column_text(statement_.get(), column));
  if (text == nullptr) return "";
  return {text,
          static_cast<size_t>(sqlite3_column_bytes(statement_.get(), column))};
}

}  // namespace backboned
