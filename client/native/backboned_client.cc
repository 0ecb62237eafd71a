#include "client/native/backboned_client.h"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "client/cpp/calls.h"
#include "client/cpp/channel.h"
#include "client/cpp/connection.h"
#include "client/cpp/credentials.h"
#include "client/cpp/error.h"
#include "proto/wire/tensor_reader.h"

namespace {

using backboned::client::Calls;
using backboned::client::Connection;
using backboned::client::TokenSource;

// The room for a token: more than the longest one has.
constexpr size_t kTextBytes = 16'384;

std::span<std::byte> SpanOf(const bb_bytes& bytes) {
  return {static_cast<std::byte*>(bytes.data), bytes.size};
}

absl::Time After(double seconds) {
  return absl::Now() + absl::Seconds(seconds);
}

}  // namespace

struct bb_client {
  std::shared_ptr<Connection> connection;
};

struct bb_call {
  std::shared_ptr<Connection> connection;
  std::unique_ptr<Calls::Call> call;
  std::optional<backboned::wire::Message> result;  // Not placed yet.
  std::optional<backboned::wire::TensorReader> reader;
  std::string bytes;
};

namespace {

// Gives the error of a call, and its code.
int Fail(bb_call& call, const absl::Status& status, bb_bytes& bytes) {
  call.bytes = backboned::client::ToDetails(status).SerializeAsString();
  bytes = {call.bytes.data(), call.bytes.size()};
  return static_cast<int>(status.code());
}

// Returns what asks `token`; null for null.
TokenSource SourceOf(bb_token token) {
  if (token == nullptr) return nullptr;
  return [token]() -> absl::StatusOr<std::string> {
    std::string text(kTextBytes, '\0');
    const ptrdiff_t length = token(text.data(), text.size());
    text.resize(std::min(static_cast<size_t>(std::abs(length)), kTextBytes));
    if (length < 0) return absl::UnauthenticatedError(text);
    return text;
  };
}

absl::Status Malformed(const absl::Status& status) {
  return absl::DataLossError(
      absl::StrCat("the answer is malformed: ", status.message()));
}

}  // namespace

int bb_version(void) { return BB_VERSION; }

const char* bb_open(const char* target, const char* session, const char* label,
                    const bb_credentials* credentials, bb_client** client) {
  // Debian's Abseil looks for deadlocks at each lock, which costs more than the
  // lock itself.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  const backboned::client::Options options = {
      .session = session,
      .label = label,
      .retry_timeout = absl::ZeroDuration(),
      .credentials = {.ca = credentials->ca,
                      .certificate = credentials->certificate,
                      .key = credentials->key,
                      .token = SourceOf(credentials->token)}};
  const absl::Status checked =
      backboned::client::CheckCredentials(options.credentials);
  if (!checked.ok()) {
    thread_local std::string sentence;
    sentence = std::string(checked.message());
    return sentence.c_str();
  }
  *client = new bb_client{
      .connection = std::make_shared<Connection>(
          backboned::client::MakeChannel(target, options.credentials), options,
          target)};
  return nullptr;
}

void bb_close(bb_client* client) { client->connection->calls().Close(); }

void bb_drop(bb_client* client) { delete client; }

void bb_begin(bb_client* client, uint32_t field, const char* header,
              size_t header_size, const bb_bytes* tensors, size_t tensor_count,
              double timeout, const bb_call* after, bb_call** call) {
  Calls::Request request = {.field = field,
                            .header = std::string(header, header_size),
                            .timeout = timeout < 0 ? absl::InfiniteDuration()
                                                   : absl::Seconds(timeout)};
  for (const bb_bytes& tensor : std::span(tensors, tensor_count)) {
    request.tensors.push_back(SpanOf(tensor));
  }
  const Calls::Call* const first =
      after == nullptr ? nullptr : after->call.get();
  *call = new bb_call{
      .connection = client->connection,
      .call = client->connection->calls().Begin(std::move(request), first),
      .result = {},
      .reader = {},
      .bytes = {}};
}

int bb_flush(bb_call* call, double seconds) {
  return call->connection->calls().Flush(*call->call, After(seconds)) ? 0 : -1;
}

int bb_wait(bb_call* call, double seconds, bb_bytes* bytes) {
  Calls& calls = call->connection->calls();
  if (!calls.Wait(*call->call, After(seconds))) return -1;
  absl::StatusOr<backboned::wire::Message> result =
      calls.WaitForResult(*call->call);
  if (!result.ok()) return Fail(*call, result.status(), *bytes);
  call->bytes = result->header_bytes();
  call->result = *std::move(result);
  *bytes = {call->bytes.data(), call->bytes.size()};
  return 0;
}

int bb_receive(bb_call* call, const bb_bytes* tensors, size_t tensor_count,
               double seconds, bb_bytes* bytes) {
  Calls& calls = call->connection->calls();
  if (!call->reader.has_value()) {
    std::vector<std::span<std::byte>> destinations;
    for (const bb_bytes& tensor : std::span(tensors, tensor_count)) {
      destinations.push_back(SpanOf(tensor));
    }
    call->reader.emplace(std::move(destinations));
  }
  const absl::Time until = After(seconds);
  while (true) {
    if (call->result.has_value()) {
      const absl::Status accepted = call->reader->Accept(*call->result);
      if (!accepted.ok()) return Fail(*call, Malformed(accepted), *bytes);
      call->result.reset();
    }
    if (!calls.Wait(*call->call, until)) return -1;
    absl::StatusOr<backboned::wire::Message> part = calls.Next(*call->call);
    if (absl::IsOutOfRange(part.status())) break;
    if (!part.ok()) return Fail(*call, part.status(), *bytes);
    call->result = *std::move(part);
  }
  const absl::Status complete = call->reader->Finish();
  return complete.ok() ? 0 : Fail(*call, Malformed(complete), *bytes);
}

void bb_free(bb_call** call) { delete std::exchange(*call, nullptr); }
