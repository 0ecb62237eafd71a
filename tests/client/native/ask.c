// Asks a server for an instance that it does not have, through the library of C
// functions: `ask TARGET`. scripts/cross-arm64 runs it.

#include <stdint.h>
#include <stdio.h>

#include "client/native/backboned_client.h"

enum { kGetParams = 14, kNotFound = 5 };  // CallsRequest.get_params; gRPC's.

int main(int argc, char** argv) {
  if (argc != 2 || bb_version() != BB_VERSION) return 1;
  const bb_credentials none = {"", "", "", NULL};
  bb_client* client = NULL;
  if (bb_open(argv[1], "ask", "", &none, &client) != NULL) return 1;
  const char header[] = "\x0a\x01x";  // The instance is named x.
  bb_call* call = NULL;
  bb_begin(client, kGetParams, header, sizeof(header) - 1, NULL, 0, 60.0, NULL,
           &call);
  bb_bytes answer;
  const int code = bb_wait(call, 60.0, &answer);
  bb_free(&call);
  bb_drop(client);
  printf("the server answered with code %d\n", code);
  return code == kNotFound ? 0 : 1;
}
