#include "api/a1111/coercion.h"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

namespace octavo::api::a1111 {
namespace {

/// The coerced value as JSON, or the error's type.
std::string coerced(const std::string& text, FieldType type) {
  const auto result = coerce(boost::json::parse(text), type);
  if (const auto* error = std::get_if<CoercionError>(&result)) return error->type;
  return boost::json::serialize(std::get<boost::json::value>(result));
}

TEST(Coercion, integers_as_pydantic_reads_them) {
  const std::pair<const char*, const char*> cases[] = {{"12", "12"},
                                                       {"1.9", "1"},
                                                       {"-1.9", "-1"},
                                                       {"true", "1"},
                                                       {"false", "0"},
                                                       {"\"7\"", "7"},
                                                       {"\" 7 \"", "7"},
                                                       {"\"+3\"", "3"},
                                                       {"\"-3\"", "-3"},
                                                       {"\"1_000\"", "1000"},
                                                       {"1e30", "9223372036854775807"},
                                                       {"-1e30", "-9223372036854775808"},
                                                       {"18446744073709551615", "9223372036854775807"},
                                                       {"\"99999999999999999999999\"", "9223372036854775807"}};
  for (const auto& [given, expected] : cases) EXPECT_EQ(coerced(given, FieldType::kInteger), expected) << given;
  for (const char* given :
       {"\"\"", "\"1.5\"", "\"0x10\"", "[]", "{}", "\"_1\"", "\"1__0\"", "\"+\"", "\"+-1\"", "\"1 2\""}) {
    EXPECT_EQ(coerced(given, FieldType::kInteger), "type_error.integer") << given;
  }
}

TEST(Coercion, floats_as_pydantic_reads_them) {
  EXPECT_EQ(coerced("7", FieldType::kFloat), "7E0");
  EXPECT_EQ(coerced("\"1e3\"", FieldType::kFloat), "1E3");
  EXPECT_EQ(coerced("true", FieldType::kFloat), "1E0");
  for (const char* given : {"\"\"", "\"1,5\"", "[]", "{}", "\"abc\"", "\"0x1p3\"", "\"+-1\""}) {
    EXPECT_EQ(coerced(given, FieldType::kFloat), "type_error.float") << given;
  }
  for (const char* given : {"\"nan\"", "\"inf\"", "\"-Infinity\"", "\"1e999\""}) {
    EXPECT_EQ(coerced(given, FieldType::kFloat), "value_error.number.not_finite_number") << given;
  }
}

TEST(Coercion, bools_as_pydantic_reads_them) {
  for (const char* given : {"true", "1", "1.0", "\"on\"", "\"T\"", "\"YES\"", "\"y\"", "\"1\""}) {
    EXPECT_EQ(coerced(given, FieldType::kBool), "true") << given;
  }
  for (const char* given : {"false", "0", "0.0", "\"off\"", "\"F\"", "\"No\"", "\"0\""}) {
    EXPECT_EQ(coerced(given, FieldType::kBool), "false") << given;
  }
  for (const char* given : {"2", "\"2\"", "\"\"", "[]", "0.5", "-1"}) {
    EXPECT_EQ(coerced(given, FieldType::kBool), "type_error.bool") << given;
  }
}

TEST(Coercion, strings_and_lists_and_objects_as_pydantic_reads_them) {
  EXPECT_EQ(coerced("5", FieldType::kString), "\"5\"");
  EXPECT_EQ(coerced("5.5", FieldType::kString), "\"5.5\"");
  EXPECT_EQ(coerced("true", FieldType::kString), "\"True\"");
  EXPECT_EQ(coerced("[]", FieldType::kString), "type_error.str");
  EXPECT_EQ(coerced("[\"a\", 1]", FieldType::kStringList), "[\"a\",\"1\"]");
  EXPECT_EQ(coerced("\"a\"", FieldType::kStringList), "type_error.list");
  EXPECT_EQ(coerced("[null]", FieldType::kStringList), "type_error.none.not_allowed");
  EXPECT_EQ(coerced("[]", FieldType::kObject), "{}");
  EXPECT_EQ(coerced("[1]", FieldType::kObject), "type_error.dict");
  EXPECT_EQ(coerced("\"a\"", FieldType::kList), "type_error.list");
}

}  // namespace
}  // namespace octavo::api::a1111
