#include "api/a1111/json_body.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/memory_resource.hpp>
#include <boost/json/stream_parser.hpp>
#include <cmath>
#include <new>

#include "api/json_writer.h"
#include "base/check.h"

namespace octavo::api::a1111 {
namespace {

namespace json = boost::json;

constexpr std::size_t kMaxDepth = 32;
/// "[1,1,1,..." needs 12 bytes of memory for each byte of text; this keeps a 32 MiB body from taking 400 MiB.
constexpr std::size_t kMaxParsedBytes = 64 << 20;

/// Heap memory up to a limit, then bad_alloc.
class LimitedMemory final : public json::memory_resource {
 private:
  // Boost.JSON frees some blocks with another alignment than it asked for them; no value needs more than the default.
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    OCTAVO_CHECK(alignment <= __STDCPP_DEFAULT_NEW_ALIGNMENT__, "alignment {}", alignment);
    if (bytes > kMaxParsedBytes - used_) throw std::bad_alloc();
    void* memory = ::operator new(bytes);
    used_ += bytes;
    return memory;
  }
  void do_deallocate(void* memory, std::size_t bytes, std::size_t) override {
    used_ -= bytes;
    ::operator delete(memory);
  }
  bool do_is_equal(const json::memory_resource& other) const noexcept override { return this == &other; }

  std::size_t used_ = 0;
};

FieldError malformed(std::string_view text, std::size_t at, const std::string& reason) {
  const std::string_view before = text.substr(0, std::min(at, text.size()));
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const std::size_t line_start = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
  const std::size_t column = before.size() - line_start + 1;
  JsonWriter context;
  context.begin_object().key("msg").string(reason).key("pos").number(static_cast<std::int64_t>(before.size()));
  context.key("lineno").number(line).key("colno").number(static_cast<std::int64_t>(column)).end_object();
  FieldError error;
  error.location = {"body"};
  error.offset = before.size();
  error.message = fmt::format("{}: line {} column {} (char {})", reason, line, column, before.size());
  error.type = "value_error.jsondecode";
  error.context = context.take();
  return error;
}

FieldError not_an_object() { return {{"body"}, "value is not a valid dict", "type_error.dict", "", std::nullopt}; }

/// Where `value` holds a number that no double is (1e999 is read as infinity): the keys and indices that lead there.
/// False when there is none. As deep as kMaxDepth at most.
bool find_not_finite(const json::value& value, std::vector<std::string>& path) {
  if (value.is_double()) return !std::isfinite(value.get_double());
  const auto within = [&path](std::string step, const json::value& member) {
    path.push_back(std::move(step));
    if (find_not_finite(member, path)) return true;
    path.pop_back();
    return false;
  };
  if (const auto* object = value.if_object()) {
    return std::any_of(object->begin(), object->end(),
                       [&within](const auto& member) { return within(std::string(member.key()), member.value()); });
  }
  if (const auto* list = value.if_array()) {
    for (std::size_t i = 0; i < list->size(); ++i) {
      if (within(std::to_string(i), (*list)[i])) return true;
    }
  }
  return false;
}

bool is_json_content(std::string_view content_type) {
  std::string type(content_type.substr(0, content_type.find(';')));
  while (!type.empty() && type.back() == ' ') type.pop_back();
  std::transform(type.begin(), type.end(), type.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return type.empty() || type == "application/json" || (type.starts_with("application/") && type.ends_with("+json"));
}

}  // namespace

std::variant<json::object, FieldError> parse_json_object(std::string_view text) {
  json::parse_options options;
  options.max_depth = kMaxDepth;
  LimitedMemory memory;  // lives only as long as the parse: the result is copied out of it
  try {
    json::stream_parser parser(&memory, options);
    parser.reset(&memory);
    json::error_code error;
    const std::size_t consumed = parser.write_some(text.data(), text.size(), error);
    if (!error && consumed < text.size()) error = json::error::extra_data;
    if (!error) parser.finish(error);
    if (error) return malformed(text, consumed, error.message());
    const json::value parsed = parser.release();
    if (!parsed.is_object()) return not_an_object();
    // Inside objects and lists, which are echoed as they came: JSON has no word for infinity. A field's own number is
    // told by its field.
    for (const auto& member : parsed.get_object()) {
      if (!member.value().is_structured()) continue;
      std::vector<std::string> path{"body", std::string(member.key())};
      if (!find_not_finite(member.value(), path)) continue;
      return FieldError{std::move(path), "ensure this value is a finite number", "value_error.number.not_finite_number",
                        "", std::nullopt};
    }
    return json::object(parsed.get_object(), json::storage_ptr());
  } catch (const std::bad_alloc&) {
    return FieldError{{"body"}, "too many values", "value_error.json_too_large", "", std::nullopt};
  }
}

std::variant<json::object, FieldError> parse_json_body(const http::Request& request) {
  if (request.body.empty()) return FieldError{{"body"}, "field required", "value_error.missing", "", std::nullopt};
  if (!is_json_content(request.header("Content-Type"))) return not_an_object();
  return parse_json_object(request.body);
}

}  // namespace octavo::api::a1111
