// Applies retried changes once.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_ONCE_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_ONCE_H_

#include <google/protobuf/message_lite.h>

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/wire/tensor_writer.h"
#include "server/callers/answer_log.h"
#include "server/rpc/transport/call.h"
#include "server/rpc/transport/message_stream.h"
#include "server/server.h"

namespace backboned::rpc {

// Returns whether the request of `call` is to be run, or its recorded answer.
// Waits while an earlier attempt is in flight, and cancels it if it still reads
// tensors. `stream`: the source of this attempt's tensors, null if it has none.
// `header` distinguishes requests.
//
// Returns kInvalidArgument if `request_id` is not a token, or was used for
// another request.
absl::StatusOr<AnswerLog::Attempt> BeginAttempt(
    Server& server, Call& call, MessageStream* stream,
    const std::string& request_id, const google::protobuf::MessageLite& header);

// Keeps an answer, its header and the tensors behind it, for a retry.
void RecordAnswer(const Call& call, AnswerTicket& ticket,
                  const google::protobuf::MessageLite& header,
                  const std::vector<wire::Payload>& payloads);

// Records an answer and sends it.
absl::Status SendAnswer(const Call& call, AnswerTicket& ticket,
                        MessageStream& stream,
                        const google::protobuf::MessageLite& header,
                        std::vector<wire::Payload> payloads);

// Returns a recorded answer, or kAborted (ANSWER_EXPIRED) if its tensors are no
// longer kept.
absl::StatusOr<std::vector<wire::Payload>> Recall(
    const RecordedAnswer& recorded, google::protobuf::MessageLite& header);

// Runs `change`, which returns a StatusOr<Response>, or returns the answer of
// an earlier attempt of the same request that succeeded. `stream` as for
// BeginAttempt.
template <typename Response, typename Request, typename Change>
absl::StatusOr<Response> RunOnce(Server& server, Call& call,
                                 MessageStream* stream, const Request& request,
                                 Change change) {
  absl::StatusOr<AnswerLog::Attempt> attempt =
      BeginAttempt(server, call, stream, request.request_id(), request);
  if (!attempt.ok()) return attempt.status();
  if (const auto* recorded = std::get_if<RecordedAnswer>(&*attempt)) {
    Response response;
    auto payloads = Recall(*recorded, response);
    if (!payloads.ok()) return payloads.status();
    return response;
  }
  absl::StatusOr<Response> response = change();
  if (response.ok())
    RecordAnswer(call, std::get<AnswerTicket>(*attempt), *response, {});
  return response;
}

// Does the same for an answer with tensors behind its header, a Result: `run`
// takes the ticket, with which it sends its answer, and returns a status.
template <typename Result, typename Header, typename Run>
absl::Status AnswerOnce(Server& server, Call& call, MessageStream& stream,
                        const Header& header, Run run) {
  absl::StatusOr<AnswerLog::Attempt> attempt =
      BeginAttempt(server, call, &stream, header.request_id(), header);
  if (!attempt.ok()) return attempt.status();
  if (auto* ticket = std::get_if<AnswerTicket>(&*attempt)) {
    return run(std::move(*ticket));
  }
  Result result;
  absl::StatusOr<std::vector<wire::Payload>> payloads =
      Recall(std::get<RecordedAnswer>(*attempt), result);
  if (!payloads.ok()) return payloads.status();
  return stream.WriteTensors(result, *std::move(payloads));
}

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_ONCE_H_
