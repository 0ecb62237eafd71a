// Uses a Backboned server from C++, by the client library.
//
// Usage: cpp-example TARGET, which is host:port or unix:/path. --ca FILE makes
// the connection one of TLS; --certificate FILE and --key FILE, and
// --token-file FILE, are what the client shows.

#include <openssl/evp.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/time/time.h"
#include "client/cpp/client.h"
#include "client/cpp/credentials.h"
#include "client/cpp/error.h"

namespace {

namespace v1 = backboned::v1;
using backboned::client::Backbone;
using backboned::client::Client;
using backboned::client::Credentials;
using backboned::client::ReadText;
using backboned::client::ReasonOf;
using backboned::client::Source;
using backboned::client::TokenFile;

// The SHA-256 of bytes that come in pieces.
class Checksum {
 public:
  Checksum() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr);
  }

  void Update(Source bytes) {
    EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size());
  }

  // As hexadecimal digits. Ends it.
  std::string Take() {
    std::string digest(32, '\0');
    EVP_DigestFinal_ex(context_.get(),
                       reinterpret_cast<unsigned char*>(digest.data()),
                       nullptr);
    return absl::BytesToHexString(digest);
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

// Eight images of made-up pixels, and their spec.
struct Images {
  Images() : pixels(size_t{8} * 3 * 32 * 32) {
    spec.set_dtype(v1::DATA_TYPE_UINT8);
    for (const int64_t size : {8, 3, 32, 32}) spec.add_shape(size);
    for (size_t i = 0; i < pixels.size(); ++i) {
      pixels[i] = static_cast<std::byte>(i * 7919 % 256);
    }
  }

  // The header of a forward of these that gives `output`.
  v1::ForwardHeader Forward(const std::string& output) const {
    v1::ForwardHeader header;
    header.add_outputs(output);
    *header.add_inputs() = spec;
    return header;
  }

  v1::TensorSpec spec;
  std::vector<std::byte> pixels;
};

v1::Selection Head() {
  v1::Selection selection;
  selection.add_globs("classifier.*");
  return selection;
}

// Asks for features in one message each way.
absl::Status Extract(const Backbone& net, const Images& images,
                     Checksum& checksum) {
  v1::ExtractRequest request;
  *request.mutable_input() = images.spec;
  request.set_data(images.pixels.data(), images.pixels.size());
  request.set_allow_merge(false);
  const auto answer = net.Extract(request);
  if (!answer.ok()) return answer.status();
  std::cout << "features:   [" << answer->output().shape(0) << ", "
            << answer->output().shape(1) << "]\n";
  checksum.Update(std::as_bytes(std::span(answer->data())));
  return absl::OkStatus();
}

// Asks for the same features by a stream.
absl::Status StreamFeatures(const Backbone& net, const Images& images,
                            Checksum& checksum) {
  const auto features =
      net.Forward(images.Forward("features"), {images.pixels});
  if (!features.ok()) return features.status();
  checksum.Update(features->tensors[0]);
  return absl::OkStatus();
}

absl::Status ReadParams(const Backbone& net, Checksum& checksum) {
  const auto params = net.GetParams();
  if (!params.ok()) return params.status();
  std::cout << "parameters: " << params->result.spec().shape(0)
            << " of version " << params->result.version().params() << "\n";
  checksum.Update(params->tensors[0]);
  return absl::OkStatus();
}

// Halves the classifier's parameters, and is refused when it writes them a
// second time onto the version that it read.
absl::Status ChangeHead(const Backbone& net) {
  v1::GetParamsRequest request;
  *request.mutable_selection() = Head();
  const auto read = net.GetParams(request);
  if (!read.ok()) return read.status();
  const std::span<float> values = read->tensors.As<float>(0);
  for (float& value : values) value /= 2;

  v1::SetParamsHeader header;
  *header.mutable_selection() = Head();
  header.mutable_if_version()->set_uid(read->result.version().uid());
  header.mutable_if_version()->set_params(read->result.version().params());
  const auto written = net.SetParams(std::as_bytes(values), header);
  if (!written.ok()) return written.status();
  std::cout << "head:       " << values.size() << " halved, version "
            << written->version().params() << "\n";

  const auto again = net.SetParams(std::as_bytes(values), header);
  if (again.ok()) return absl::InternalError("a stale version was accepted");
  const v1::ErrorReason reason = ReasonOf(again.status());
  if (reason != v1::ERROR_REASON_STALE_VERSION) return again.status();
  std::cout << "again:      refused, " << v1::ErrorReason_Name(reason) << "\n";
  return absl::OkStatus();
}

// Makes a forward in training that is kept, and its backward. The gradient of
// half the sum of the squared logits is the logits.
absl::Status Train(const Backbone& net, const Images& images,
                   Checksum& checksum) {
  v1::ForwardHeader forward = images.Forward("out");
  forward.set_training(true);
  forward.set_tape(true);
  const auto logits = net.Forward(forward, {images.pixels});
  if (!logits.ok()) return logits.status();
  checksum.Update(logits->tensors[0]);

  v1::BackwardHeader backward;
  v1::TapeGradients& tape = *backward.add_tapes();
  tape.set_tape_id(logits->result.tape_id());
  *tape.add_gradients() = logits->result.outputs(0);
  backward.set_return_grads(true);
  const auto grads = net.Backward(backward, {logits->tensors[0]});
  if (!grads.ok()) return grads.status();
  std::cout << "gradients:  " << grads->result.grads().spec().shape(0) << "\n";
  checksum.Update(grads->tensors[0]);
  return absl::OkStatus();
}

// Goes through the calls; prints what they gave, and the answers' checksum.
absl::Status Use(const Backbone& net) {
  const Images images;
  Checksum checksum;
  absl::Status status = Extract(net, images, checksum);
  if (status.ok()) status = StreamFeatures(net, images, checksum);
  if (status.ok()) status = ReadParams(net, checksum);
  if (status.ok()) status = ChangeHead(net);
  if (status.ok()) status = Train(net, images, checksum);
  if (status.ok()) std::cout << "sha256:     " << checksum.Take() << "\n";
  return status;
}

// Makes an instance, uses it, and deletes it in any case.
absl::Status Run(const std::string& target, Credentials credentials) {
  backboned::client::Options options;
  options.call_timeout = absl::Minutes(1);  // Of each call.
  // No call is made again, as in the other examples.
  options.retry_timeout = absl::ZeroDuration();
  options.credentials = std::move(credentials);
  const auto client = Client::Connect(target, options);
  if (!client.ok()) return client.status();
  const auto server = client->GetServer();
  if (!server.ok()) return server.status();
  std::cout << "server:     " << server->version() << ", LibTorch "
            << server->torch_version() << "\n";

  v1::CreateInstanceRequest create;
  create.set_benchmark("seq-cifar10");
  create.set_seed(0);
  const auto created = client->CreateInstance(create);
  if (!created.ok()) return created.status();
  const std::string& name = created->instance().name();
  absl::Status used = Use(client->backbone(name));

  v1::DeleteInstanceRequest request;
  request.set_instance(name);
  const auto deleted = client->DeleteInstance(request);
  used.Update(deleted.status());
  return used;
}

// The files that the command line names; empty: none.
struct Files {
  std::string ca;
  std::string certificate;
  std::string key;
  std::string token;
};

absl::StatusOr<Credentials> Read(const Files& files) {
  Credentials credentials;
  for (const auto& [path, text] :
       {std::pair(&files.ca, &credentials.ca),
        std::pair(&files.certificate, &credentials.certificate),
        std::pair(&files.key, &credentials.key)}) {
    if (path->empty()) continue;
    absl::StatusOr<std::string> read = ReadText("the file", *path);
    if (!read.ok()) return read.status();
    *text = *std::move(read);
  }
  // Is read for each call.
  if (!files.token.empty()) credentials.token = TokenFile(files.token);
  return credentials;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app;
  std::string target;
  Files files;
  app.add_option("TARGET", target)->required();
  app.add_option("--ca", files.ca);
  app.add_option("--certificate", files.certificate);
  app.add_option("--key", files.key);
  app.add_option("--token-file", files.token);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError&) {
    std::cerr
        << "usage: cpp-example [--ca FILE] [--certificate FILE --key FILE] "
           "[--token-file FILE] TARGET (host:port or unix:/path)\n";
    return 2;
  }
  absl::StatusOr<Credentials> credentials = Read(files);
  const absl::Status status = credentials.ok()
                                  ? Run(target, *std::move(credentials))
                                  : credentials.status();
  if (!status.ok()) std::cerr << "example: " << status << "\n";
  return status.ok() ? 0 : 1;
}
