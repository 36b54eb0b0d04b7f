#include "http/message.h"

#include <gtest/gtest.h>

namespace octavo::http {
namespace {

TEST(Request, finds_headers_of_any_case) {
  Request request;
  request.headers = {{"Content-Type", "application/json"}, {"X-A", "1"}, {"x-a", "2"}};
  EXPECT_EQ(request.header("content-type"), "application/json");
  EXPECT_EQ(request.header("X-a"), "1");
  EXPECT_EQ(request.header("missing"), "");
}

TEST(QueryValue, decodes_keys_and_values) {
  std::string value;
  ASSERT_TRUE(query_value("a=1&b%20c=x+y%2Bz&a=2&flag", "b c", &value));
  EXPECT_EQ(value, "x y+z");
  ASSERT_TRUE(query_value("a=1&a=2", "a", &value));
  EXPECT_EQ(value, "1");
  ASSERT_TRUE(query_value("a=1&flag", "flag", &value));
  EXPECT_EQ(value, "");
  EXPECT_FALSE(query_value("", "a", &value));
  EXPECT_FALSE(query_value("ab=1", "a", &value));
}

TEST(QueryValue, keeps_broken_escapes_as_they_are) {
  std::string value;
  for (const char* text : {"%", "%4", "%zz", "100%"}) {
    ASSERT_TRUE(query_value(std::string("a=") + text, "a", &value));
    EXPECT_EQ(value, text);
  }
}

TEST(ReasonPhrase, knows_what_is_sent) {
  EXPECT_EQ(reason_phrase(404), "Not Found");
  EXPECT_EQ(reason_phrase(299), "");
}

}  // namespace
}  // namespace octavo::http
