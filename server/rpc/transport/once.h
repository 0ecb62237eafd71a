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
#include "base/task.h"
#include "proto/wire/tensor_writer.h"
#include "server/callers/answer_log.h"
#include "server/rpc/transport/call.h"
#include "server/rpc/transport/message_stream.h"
#include "server/server.h"

namespace backboned::rpc {

// Gives whether the request of `call` is to be run, or its recorded answer.
// Awaits the end of an earlier attempt that is in flight, and cancels it if it
// still reads tensors. `stream`: the source of this attempt's tensors, null if
// it has none. `header` distinguishes requests.
//
// Returns kInvalidArgument if `request_id` is not a token, or was used for
// another request.
Task<absl::StatusOr<AnswerLog::Attempt>> BeginAttempt(
    Server& server, Call& call, MessageStream* stream,
    const std::string& request_id, const google::protobuf::MessageLite& header);

// Keeps an answer, its header and the tensors behind it, for a retry.
void RecordAnswer(const Call& call, AnswerTicket& ticket,
                  const google::protobuf::MessageLite& header,
                  const std::vector<wire::Payload>& payloads);

// Records an answer and sends it.
Task<absl::Status> SendAnswer(const Call& call, AnswerTicket& ticket,
                              MessageStream& stream,
                              const google::protobuf::MessageLite& header,
                              std::vector<wire::Payload> payloads);

// Returns a recorded answer, or kAborted (ANSWER_EXPIRED) if its tensors are no
// longer kept.
absl::StatusOr<std::vector<wire::Payload>> Recall(
    const RecordedAnswer& recorded, google::protobuf::MessageLite& header);

// Runs `change`, which gives a StatusOr<Response>, or gives the answer of an
// earlier attempt of the same request that succeeded. `stream` as for
// BeginAttempt.
template <typename Response, typename Request, typename Change>
Task<absl::StatusOr<Response>> RunOnce(Server& server, Call& call,
                                       MessageStream* stream,
                                       const Request& request,
                                       const Change& change) {
  absl::StatusOr<AnswerLog::Attempt> attempt = co_await BeginAttempt(
      server, call, stream, request.request_id(), request);
  if (!attempt.ok()) co_return attempt.status();
  if (const auto* recorded = std::get_if<RecordedAnswer>(&*attempt)) {
    Response response;
    auto payloads = Recall(*recorded, response);
    if (!payloads.ok()) co_return payloads.status();
    co_return response;
  }
  absl::StatusOr<Response> response = co_await change();
  if (response.ok())
    RecordAnswer(call, std::get<AnswerTicket>(*attempt), *response, {});
  co_return response;
}

// Does the same for an answer with tensors behind its header, a Result: `run`
// takes the ticket, with which it sends its answer, and gives a status.
template <typename Result, typename Header, typename Run>
Task<absl::Status> AnswerOnce(Server& server, Call& call, MessageStream& stream,
                              const Header& header, const Run& run) {
  absl::StatusOr<AnswerLog::Attempt> attempt =
      co_await BeginAttempt(server, call, &stream, header.request_id(), header);
  if (!attempt.ok()) co_return attempt.status();
  if (auto* ticket = std::get_if<AnswerTicket>(&*attempt)) {
    co_return co_await run(std::move(*ticket));
  }
  Result result;
  absl::StatusOr<std::vector<wire::Payload>> payloads =
      Recall(std::get<RecordedAnswer>(*attempt), result);
  if (!payloads.ok()) co_return payloads.status();
  co_return co_await stream.WriteTensors(result, *std::move(payloads));
}

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_ONCE_H_
