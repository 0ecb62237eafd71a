// Makes channels, and the metadata of what goes through them.

#ifndef BACKBONED_CLIENT_CPP_CHANNEL_H_
#define BACKBONED_CLIENT_CPP_CHANNEL_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <memory>
#include <string>

#include "client/cpp/options.h"

namespace backboned::client {

// Makes a channel to `unix:/path` or `host:port`, without waiting for it.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& target);

// Adds the session and the label of `options`.
void AddMetadata(const Options& options, grpc::ClientContext& context);

}  // namespace backboned::client

#endif  // BACKBONED_CLIENT_CPP_CHANNEL_H_
