#include "tests/api/client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "base/check.h"

namespace octavo::tests {

Client::Client(int port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
  OCTAVO_CHECK(socket_ >= 0, "no socket");
  const timeval timeout{20, 0};
  ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
  const int on = 1;
  ::setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int connected = ::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  OCTAVO_CHECK(connected == 0, "cannot connect to port {}", port);
}

Client::~Client() { close(); }

void Client::close() {
  if (socket_ >= 0) ::close(socket_);
  socket_ = -1;
}

bool Client::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

bool Client::read_more() {
  std::array<char, 65536> bytes{};
  const ssize_t count = ::recv(socket_, bytes.data(), bytes.size(), 0);
  if (count <= 0) return false;
  buffer_.append(bytes.data(), static_cast<std::size_t>(count));
  return true;
}

Answer Client::receive(bool head) {
  Answer answer;
  std::size_t end = 0;
  while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
    if (!read_more()) return answer;
  }
  std::size_t line = buffer_.find("\r\n");
  const int status = std::stoi(buffer_.substr(buffer_.find(' ') + 1, 3));
  while (line < end) {
    const std::size_t begin = line + 2;
    line = buffer_.find("\r\n", begin);
    const std::size_t colon = buffer_.find(':', begin);
    std::string name = buffer_.substr(begin, colon - begin);
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    answer.headers[name] = buffer_.substr(colon + 2, line - colon - 2);
  }
  buffer_.erase(0, end + 4);
  if (status == 100) return receive(head);
  const auto length = answer.headers.find("content-length");
  if (!head && length != answer.headers.end()) {
    const std::size_t bytes = std::stoul(length->second);
    while (buffer_.size() < bytes) {
      if (!read_more()) return answer;
    }
    answer.body = buffer_.substr(0, bytes);
    buffer_.erase(0, bytes);
  }
  answer.status = status;
  return answer;
}

Answer Client::call(const std::string& method, const std::string& target, const std::string& body,
                    const std::string& headers) {
  if (!send(request_bytes(method, target, body, headers))) return {};
  return receive(method == "HEAD");
}

bool Client::closed_by_server() {
  char byte = 0;
  return buffer_.empty() && ::recv(socket_, &byte, 1, 0) == 0;
}

std::string request_bytes(const std::string& method, const std::string& target, const std::string& body,
                          const std::string& headers) {
  return method + " " + target + " HTTP/1.1\r\nHost: localhost\r\n" + headers +
         (body.empty() && method != "POST" ? "" : "Content-Length: " + std::to_string(body.size()) + "\r\n") + "\r\n" +
         body;
}

}  // namespace octavo::tests
