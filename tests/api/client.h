// A small blocking HTTP client for tests: raw bytes out, one parsed answer in.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace octavo::tests {

struct Answer {
  int status = 0;                              // 0: the server closed without an answer
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
};

class Client {
 public:
  /// Connects to 127.0.0.1. Every read gives up after 20 seconds, so a hanging server fails a test.
  explicit Client(int port);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  /// False when the server has closed.
  bool send(std::string_view bytes);
  /// The next answer on this connection. `head`: an answer to HEAD, which has no body.
  Answer receive(bool head = false);
  Answer call(const std::string& method, const std::string& target, const std::string& body = "",
              const std::string& headers = "Content-Type: application/json\r\n");
  /// The server closes, with nothing more to read.
  bool closed_by_server();
  void close();

 private:
  bool read_more();

  int socket_ = -1;
  std::string buffer_;
};

/// A request as it goes over the wire; adds Host and Content-Length.
std::string request_bytes(const std::string& method, const std::string& target, const std::string& body,
                          const std::string& headers = "Content-Type: application/json\r\n");

}  // namespace octavo::tests
