#include "server/admin/http_server.h"

#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <chrono>
#include <deque>
#include <list>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "server/limits/catching.h"

namespace backboned::admin {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using Error = boost::system::error_code;
using Protocol = asio::generic::stream_protocol;
using Acceptor = asio::basic_socket_acceptor<Protocol>;
using Socket = asio::basic_stream_socket<Protocol>;
using Response = http::response<http::string_body>;

// A pause after an error that the next attempt would meet, too: no descriptor
// is left. The connection waits in the socket's queue.
constexpr std::chrono::milliseconds kPause(100);

Response ResponseOf(Page page) {
  Response response(http::int_to_status(page.status), /*version=*/11);
  response.set(http::field::content_type, page.type);
  response.set(http::field::cache_control, "no-store");
  response.set("X-Content-Type-Options", "nosniff");
  for (const auto& [name, value] : page.headers) response.set(name, value);
  if (page.status == 405) response.set(http::field::allow, "GET");
  response.keep_alive(false);
  response.body() = std::move(page.body);
  response.prepare_payload();
  return response;
}

// Returns whether `host`, a request's header, names this machine in a way that
// no site's name does. An old client gives none.
bool IsLocal(std::string_view host) {
  if (host.empty()) return true;
  const size_t bracket = host.find(']');
  if (host.front() == '[' && bracket != std::string_view::npos) {
    host = host.substr(1, bracket - 1);
  } else {
    host = host.substr(0, host.find(':'));
  }
  if (absl::EqualsIgnoreCase(std::string(host), "localhost")) return true;
  Error no_address;
  asio::ip::make_address(std::string(host), no_address);
  return !no_address;
}

// Makes the answer to a request.
Page Answer(const Pages& pages, bool any_host,
            const http::request<http::string_body>& request) {
  const boost::beast::string_view host = request[http::field::host];
  if (!any_host && !IsLocal({host.data(), host.size()})) {
    return {.status = 421,
            .body =
                "ask by an address or as localhost: other names are "
                "refused without --insecure-remote\n"};
  }
  const boost::beast::string_view target = request.target();
  const auto page = pages.find(std::string(target.substr(0, target.find('?'))));
  if (page == pages.end()) return {.status = 404, .body = "no such page\n"};
  if (request.method() != http::verb::get) {
    return {.status = 405, .body = "only GET\n"};
  }
  Page made = {.status = 500, .body = "the page failed; see the log\n"};
  RunCatching([&] {
    made = page->second();
    return absl::OkStatus();
  }).IgnoreError();
  return made;
}

}  // namespace

class HttpServer::Loop {
 public:
  Loop(std::vector<Descriptor> listeners, bool any_host, Pages pages)
      : any_host_(any_host), pages_(std::move(pages)) {
    for (Descriptor& listener : listeners) {
      // Only accept is asked of it: the family of addresses does not matter.
      Door& door = doors_.emplace_back(
          Acceptor(context_, Protocol(AF_UNIX, 0), listener.Release()),
          asio::steady_timer(context_));
      Accept(door);
    }
    thread_ = std::thread([this] { Run(); });
  }

  ~Loop() {
    context_.stop();
    thread_.join();
  }

 private:
  struct Door {
    Door(Acceptor of, asio::steady_timer pause)
        : acceptor(std::move(of)), timer(std::move(pause)) {}
    Acceptor acceptor;
    asio::steady_timer timer;
  };

  // A connection. It lives as long as it waits for something.
  class Connection : public std::enable_shared_from_this<Connection> {
   public:
    Connection(Loop& loop, Socket socket)
        : loop_(loop),
          socket_(std::move(socket)),
          end_(loop.context_),
          buffer_(kMaxHeaderBytes + kMaxBodyBytes) {
      loop_.open_.push_back(this);
      parser_.header_limit(kMaxHeaderBytes);
      parser_.body_limit(kMaxBodyBytes);
    }
    ~Connection() { loop_.open_.remove(this); }

    void Begin() {
      Limit();
      http::async_read(
          socket_, buffer_, parser_,
          [self = shared_from_this()](Error error, size_t) {
            if (error == http::error::end_of_stream ||
                error == asio::error::operation_aborted) {
              return self->Close();
            }
            const Loop& loop = self->loop_;
            self->Write(error ? Page{.status = 400, .body = "bad request\n"}
                              : Answer(loop.pages_, loop.any_host_,
                                       self->parser_.get()));
          });
    }

    // Ends what it waits for, and so its life.
    void Close() {
      loop_.open_.remove(this);
      Error ignored;
      socket_.close(ignored);
      end_.cancel();
    }

   private:
    // Closes it after the patience, counted from now.
    void Limit() {
      end_.expires_after(absl::ToChronoNanoseconds(kPatience));
      end_.async_wait([weak = weak_from_this()](Error error) {
        const std::shared_ptr<Connection> self = weak.lock();
        if (!error && self != nullptr) self->Close();
      });
    }

    void Write(Page page) {
      Limit();
      response_ = ResponseOf(std::move(page));
      http::async_write(
          socket_, response_,
          [self = shared_from_this()](Error, size_t) { self->Close(); });
    }

    Loop& loop_;
    Socket socket_;
    asio::steady_timer end_;
    boost::beast::flat_buffer buffer_;
    http::request_parser<http::string_body> parser_;
    Response response_;
  };

  void Run() {
    while (!context_.stopped()) {
      RunCatching([this] {  // Logs a failure; the others go on.
        context_.run();
        return absl::OkStatus();
      })
          .IgnoreError();
    }
  }

  void Accept(Door& door) {
    door.acceptor.async_accept([this, &door](Error error, Socket socket) {
      if (error && error != asio::error::connection_aborted) {
        door.timer.expires_after(kPause);
        door.timer.async_wait([this, &door](Error) { Accept(door); });
        return;
      }
      Accept(door);  // First: the rest may lack memory.
      if (error) return;
      std::make_shared<Connection>(*this, std::move(socket))->Begin();
      if (open_.size() > kMostConnections) open_.front()->Close();
    });
  }

  const bool any_host_;
  const Pages pages_;
  std::list<Connection*> open_;  // The oldest first. Outlives the context.
  asio::io_context context_{1};  // One thread runs it.
  std::deque<Door> doors_;
  std::thread thread_;
};

HttpServer::HttpServer(std::vector<Descriptor> listeners, bool any_host,
                       Pages pages)
    : loop_(std::make_unique<Loop>(std::move(listeners), any_host,
                                   std::move(pages))) {}

HttpServer::~HttpServer() = default;

}  // namespace backboned::admin
