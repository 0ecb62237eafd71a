// Makes channels, and the metadata of what goes through them.

#ifndef BACKBONED_CLIENT_CPP_CHANNEL_H_
#define BACKBONED_CLIENT_CPP_CHANNEL_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "client/cpp/credentials.h"
#include "client/cpp/options.h"

namespace backboned::client {

// Makes a channel to `unix:/path` or `host:port`, without waiting for it.
// CheckCredentials must accept the credentials.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& target,
                                           const Credentials& credentials = {});

// Adds the session, the label and the token of `options`. Returns
// kUnauthenticated if there is to be a token, and is none.
absl::Status AddMetadata(const Options& options, grpc::ClientContext& context);

}  // namespace backboned::client

#endif  // BACKBONED_CLIENT_CPP_CHANNEL_H_
