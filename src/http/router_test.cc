#include "http/router.h"

#include <gtest/gtest.h>

#include "base/check.h"

namespace octavo::http {
namespace {

void nothing(const std::shared_ptr<Exchange>&) {}

Router sample() { return Router({{"GET", "/a", nothing}, {"POST", "/a", nothing}, {"GET", "/", nothing}}); }

TEST(Router, finds_the_row_of_method_and_path) {
  const Router router = sample();
  const auto match = router.match("POST", "/a", "");
  ASSERT_NE(match.route, nullptr);
  EXPECT_EQ(match.route->method, "POST");
  EXPECT_EQ(match.label, "/a");
}

TEST(Router, unknown_paths_are_404_with_a_label_of_bounded_variety) {
  const Router router = sample();
  for (const char* path : {"/b", "/a/b", "a", "", "/A", "/b/"}) {
    const auto match = router.match("GET", path, "");
    EXPECT_EQ(match.route, nullptr) << path;
    EXPECT_EQ(match.refusal.status, 404) << path;
    EXPECT_EQ(match.label, "other") << path;
  }
}

TEST(Router, a_known_path_with_another_method_is_405_with_the_allowed_ones) {
  const auto match = sample().match("PUT", "/a", "");
  EXPECT_EQ(match.refusal.status, 405);
  EXPECT_EQ(match.refusal.headers.at(0).name, "Allow");
  EXPECT_EQ(match.refusal.headers.at(0).value, "GET, POST");
}

TEST(Router, a_trailing_slash_is_redirected_with_its_query) {
  const auto match = sample().match("GET", "/a/", "x=1");
  EXPECT_EQ(match.refusal.status, 307);
  EXPECT_EQ(match.refusal.headers.at(0).value, "/a?x=1");
}

TEST(Router, two_rows_for_one_place_are_a_check_failure) {
  EXPECT_THROW(Router({{"GET", "/a", nothing}, {"GET", "/a", nothing}}), CheckFailure);
}

}  // namespace
}  // namespace octavo::http
