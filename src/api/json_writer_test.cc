#include "api/json_writer.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/check.h"

namespace octavo::api {
namespace {

std::string sample(JsonStyle style) {
  JsonWriter json(style);
  json.begin_object().key("a").begin_array().number(-1).real(7).boolean(true).null().begin_array().end_array();
  json.end_array().key("b").string("caf\xC3\xA9 \xF0\x9F\x90\xB1 \"\\\n\x01").key("c").begin_object().end_object();
  return json.end_object().take();
}

TEST(JsonWriter, compact_keeps_utf8) {
  EXPECT_EQ(sample(JsonStyle::kCompact),
            "{\"a\":[-1,7.0,true,null,[]],\"b\":\"caf\xC3\xA9 \xF0\x9F\x90\xB1 \\\"\\\\\\n\\u0001\",\"c\":{}}");
}

TEST(JsonWriter, python_escapes_what_is_not_ascii) {
  EXPECT_EQ(sample(JsonStyle::kPython),
            "{\"a\": [-1, 7.0, true, null, []], \"b\": \"caf\\u00e9 \\ud83d\\udc31 \\\"\\\\\\n\\u0001\", \"c\": {}}");
}

TEST(JsonWriter, refuses_numbers_json_has_no_word_for) {
  EXPECT_THROW(JsonWriter().real(std::numeric_limits<double>::quiet_NaN()), CheckFailure);
}

}  // namespace
}  // namespace octavo::api
