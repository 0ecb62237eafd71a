#include "server/rpc/transport/once.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <utility>

#include "base/digest.h"
#include "base/errors.h"

namespace backboned::rpc {
namespace {

// Returns the same bytes for the same content, maps included.
std::string Canonical(const google::protobuf::MessageLite& message) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    message.SerializeToCodedStream(&coded);
  }
  return bytes;
}

}  // namespace

Task<absl::StatusOr<AnswerLog::Attempt>> BeginAttempt(
    Server& server, Call& call, MessageStream* stream,
    const std::string& request_id,
    const google::protobuf::MessageLite& header) {
  if (!request_id.empty() && !IsToken(request_id)) {
    co_return InvalidOption(
        "request_id is not 1 to 64 characters of [A-Za-z0-9_.-]");
  }
  call.record().request_id = request_id;
  RequestKey key = {.principal = call.principal(),
                    .method = call.method(),
                    .request_id = request_id,
                    .session = call.session()};
  std::string fingerprint =
      request_id.empty() ? "" : TextDigest(Canonical(header));
  AttemptCaller caller = {.stop = call.gone(),
                          .wanted = [&call] { return call.CheckWanted(); }};
  if (stream != nullptr) caller.give_way = [stream] { stream->GiveWay(); };
  co_return co_await server.answers().Begin(
      std::move(key), std::move(fingerprint), call.clock().Now(),
      std::move(caller));
}

void RecordAnswer(const Call& call, AnswerTicket& ticket,
                  const google::protobuf::MessageLite& header,
                  const std::vector<wire::Payload>& payloads) {
  Answer answer{.header = header.SerializeAsString()};
  for (const wire::Payload& payload : payloads) {
    answer.payload_bytes += static_cast<int64_t>(payload.bytes.size());
  }
  if (!payloads.empty()) {
    answer.payload =
        std::make_shared<const std::vector<wire::Payload>>(payloads);
  }
  ticket.Record(std::move(answer), call.clock().Now());
}

Task<absl::Status> SendAnswer(const Call& call, AnswerTicket& ticket,
                              MessageStream& stream,
                              const google::protobuf::MessageLite& header,
                              std::vector<wire::Payload> payloads) {
  RecordAnswer(call, ticket, header, payloads);
  co_return co_await stream.WriteTensors(header, std::move(payloads));
}

absl::StatusOr<std::vector<wire::Payload>> Recall(
    const RecordedAnswer& recorded, google::protobuf::MessageLite& header) {
  if (recorded.payload_expired) {
    return Error(absl::StatusCode::kAborted, Reason::kAnswerExpired,
                 "the request was applied, but its answer's tensors are no "
                 "longer kept; read the instance's state");
  }
  if (!header.ParseFromString(recorded.answer.header)) {
    return absl::InternalError("a recorded answer cannot be decoded");
  }
  if (recorded.answer.payload == nullptr) return std::vector<wire::Payload>();
  return *std::static_pointer_cast<const std::vector<wire::Payload>>(
      recorded.answer.payload);
}

}  // namespace backboned::rpc
