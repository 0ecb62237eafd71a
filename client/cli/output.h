// Prints what people read, and what programs do.

#ifndef BACKBONED_CLIENT_CLI_OUTPUT_H_
#define BACKBONED_CLIENT_CLI_OUTPUT_H_

#include <google/protobuf/message.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"

namespace backboned::cli {

// A table of aligned columns, two spaces apart.
class Table {
 public:
  struct Column {
    std::string name;
    bool is_number = false;  // Stands at the right.
  };

  explicit Table(std::vector<Column> columns);

  // Adds a row, a cell for each column. An empty cell prints as "-"; control
  // characters print as "?".
  void Add(std::vector<std::string> cells);

  // Returns the lines; the first one, bold if `is_bold`, names the columns.
  std::string Format(bool is_bold) const;

 private:
  std::vector<Column> columns_;
  std::vector<size_t> widths_;
  std::vector<std::vector<std::string>> rows_;
};

// Returns whether standard output shows colours: it is a terminal, and neither
// NO_COLOR is set nor TERM `dumb`.
bool HasColours();

// Prints a table.
void Print(const Table& table);

// Returns a message as protobuf's JSON, with the contract's names of fields and
// those that are not set. 64-bit numbers are strings there.
std::string JsonOf(const google::protobuf::Message& message);

// Prints it.
void PrintJson(const google::protobuf::Message& message);

// Returns bytes for people: `512 B`, `1.5 MB`, by powers of 1000.
std::string FormatBytes(int64_t bytes);

// Returns a count for people: `89610`, `11.2 M`.
std::string FormatCount(int64_t count);

// Returns the time since `then`, for people: `5 s`, `3 h`, `12 d`.
std::string FormatAge(absl::Duration age);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_OUTPUT_H_
