// Ends the program by Ctrl-C at any moment, with nothing left half-done.

#ifndef BACKBONED_CLIENT_CLI_INTERRUPT_H_
#define BACKBONED_CLIENT_CLI_INTERRUPT_H_

#include <termios.h>

#include <string>

namespace backboned::cli {

// Lets SIGINT, SIGTERM and SIGHUP end the program with 128 and their number,
// after what the following two have asked for. Those that are ignored stay so.
void HandleInterrupts();

// Removes a file when the program is interrupted, at most one at a time; empty:
// none.
void RemoveWhenInterrupted(const std::string& path);

// Sends `text`, a literal, to the terminal of standard output when the program
// is interrupted, and gives that of standard input this mode, unless it is
// null. An empty text: does neither.
void RestoreWhenInterrupted(const char* text, const termios* mode);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_INTERRUPT_H_
