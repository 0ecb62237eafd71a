// The calls of the C++ client for other languages.
//
// Memory is named by addresses. A call's memory must live until bb_free, and
// what it sends must not change until then. Functions are thread-safe, but a
// call belongs to one thread at a time.

#ifndef BACKBONED_CLIENT_NATIVE_BACKBONED_CLIENT_H_
#define BACKBONED_CLIENT_NATIVE_BACKBONED_CLIENT_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BB_API __attribute__((visibility("default")))

typedef struct bb_client bb_client;
typedef struct bb_call bb_call;

// Bytes, at an address.
typedef struct {
  void* data;
  size_t size;
} bb_bytes;

// The version of these functions: another one does not fit a caller of this
// one.
#define BB_VERSION 3
BB_API int bb_version(void);

// Writes a token to `text`, which has room for `size` bytes, and returns its
// length; or minus the length of a sentence that says why there is none. Is
// called inside of bb_begin, bb_wait and others, when a stream opens, and may
// call none of these functions.
typedef ptrdiff_t (*bb_token)(char* text, size_t size);

// A client's credentials, and the CA by which it knows the server. PEM; empty:
// none. A null `token`: none.
typedef struct {
  const char* ca;
  const char* certificate;
  const char* key;
  bb_token token;
} bb_credentials;

// Makes a client of the server `target` (unix:/path or host:port), which calls
// under a session and a label (empty: none), and sets `client`. Connects with
// the first call. Returns null; or, if the credentials are none, a sentence,
// which lives until the thread's next call.
BB_API const char* bb_open(const char* target, const char* session,
                           const char* label, const bb_credentials* credentials,
                           bb_client** client);

// Ends all calls of a client, now and later.
BB_API void bb_close(bb_client* client);

// Frees a client. Its stream ends with its last call.
BB_API void bb_drop(bb_client* client);

// Begins a call: `field` is CallsRequest's of its `header`, which is encoded
// and copied. `timeout` is in seconds; negative: none. A call that could not be
// sent, or whose stream broke, is not sent again. Works only if `after`, a call
// of the same client, succeeds or has succeeded, else ends with ABORTED
// (NOT_BEGUN), or UNAVAILABLE if the stream broke; null: in any case. Sets
// `call`, which a caller that may be interrupted behind the function has in any
// case.
BB_API void bb_begin(bb_client* client, uint32_t field, const char* header,
                     size_t header_size, const bb_bytes* tensors,
                     size_t tensor_count, double timeout, const bb_call* after,
                     bb_call** call);

// Waits until a call's request has been written, or the call has ended, at most
// `seconds`. Returns -1 if it has not, else 0. A call that nobody waits for
// needs this: its bytes go while somebody waits.
BB_API int bb_flush(bb_call* call, double seconds);

// Waits for the result of a call, at most `seconds`. Returns -1 if there is
// none yet; 0: `bytes` is the encoded result; else the gRPC code of the call's
// failure: `bytes` is an encoded StatusDetails. They live until bb_free.
BB_API int bb_wait(bb_call* call, double seconds, bb_bytes* bytes);

// Waits for the tensors behind the result, and for the call's end, at most
// `seconds`. `tensors` is of the first time. Returns as bb_wait; 0: all came.
BB_API int bb_receive(bb_call* call, const bb_bytes* tensors,
                      size_t tensor_count, double seconds, bb_bytes* bytes);

// Ends a call, if it has not ended, and sets it to null. Does nothing for null.
BB_API void bb_free(bb_call** call);

#ifdef __cplusplus
}
#endif

#endif  // BACKBONED_CLIENT_NATIVE_BACKBONED_CLIENT_H_
