// Serves a few small pages over plain HTTP/1.1.

#ifndef BACKBONED_SERVER_ADMIN_HTTP_SERVER_H_
#define BACKBONED_SERVER_ADMIN_HTTP_SERVER_H_

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "base/descriptor.h"

namespace backboned::admin {

// The answer to a GET.
struct Page {
  unsigned status = 200;
  std::string type = "text/plain; charset=utf-8";
  std::string body;
  // Besides those that each answer has.
  std::vector<std::pair<std::string, std::string>> headers = {};
};

// The functions that make the pages, by path. All run on one thread, one at a
// time.
using Pages = std::map<std::string, std::function<Page()>>;

// Answers GETs, one a connection, on one thread that never waits for a client:
// slow ones hold up nobody. Those that have not sent their request, or taken
// their answer, after kPatience are cut off; and when more than
// kMostConnections are open, the oldest one is.
//
// Those that name another host than this machine may be kept out: a browser
// asks for them if a page of some other site has its own name point here, so
// that it may read the answer.
//
// Thread-safe.
class HttpServer {
 public:
  static constexpr size_t kMostConnections = 64;
  static constexpr absl::Duration kPatience = absl::Seconds(5);
  static constexpr unsigned kMaxHeaderBytes = 8192;
  static constexpr unsigned kMaxBodyBytes = 1024;  // Which nobody reads.

  // Accepts on `listeners`, sockets that listen and do not block, from now on.
  // With `any_host` the name in a request does not matter; else it must be an
  // address or `localhost`.
  HttpServer(std::vector<Descriptor> listeners, bool any_host, Pages pages);

  // Closes all connections.
  ~HttpServer();

  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

 private:
  class Loop;
  const std::unique_ptr<Loop> loop_;
};

}  // namespace backboned::admin

#endif  // BACKBONED_SERVER_ADMIN_HTTP_SERVER_H_
