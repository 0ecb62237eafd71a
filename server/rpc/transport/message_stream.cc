#include "server/rpc/transport/message_stream.h"

namespace backboned::rpc {

Task<absl::Status> MessageStream::Complete(wire::TensorWriter& writer,
                                           LaterBytes* later) {
  while (writer.lacks_bytes()) {
    absl::StatusOr<std::vector<wire::Payload>> more = co_await later->Next();
    if (!more.ok()) co_return more.status();
    writer.Append(*std::move(more));
  }
  co_return absl::OkStatus();
}

}  // namespace backboned::rpc
