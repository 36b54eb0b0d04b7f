#include "text/prompt_grammar.h"

#include <algorithm>
#include <charconv>

#include "text/unicode.h"

namespace octavo::text {
namespace {

constexpr double kRoundFactor = 1.1, kSquareFactor = 1 / 1.1;
constexpr double kMostProduct = 1e9;  // products are kept below it, so that no infinity meets a zero
constexpr std::size_t kDeepest = 64;  // brackets inside brackets of one kind; deeper ones are text

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string_view without_leading_space(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  return text;
}

std::string_view without_trailing_space(std::string_view text) {
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

/// A finite decimal number and nothing else, with white space around it.
std::optional<double> read_number(std::string_view text) {
  text = without_leading_space(without_trailing_space(text));
  const bool plus = text.starts_with('+');
  if (plus) text.remove_prefix(1);
  if (text.empty() || (plus && text.starts_with('-'))) return std::nullopt;
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (!(number >= -kMostProduct && number <= kMostProduct)) return std::nullopt;
  return number;
}

double clamped(double weight) { return std::clamp(weight, -kMostWeight, kMostWeight); }

/// A letter, a digit or '_' touches BREAK: then it is part of a longer word.
bool is_word(std::string_view text, std::size_t at) {
  const char c = text[at];
  if (static_cast<unsigned char>(c) < 0x80) {
    return c == '_' || is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  }
  std::size_t begin = at;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  const char32_t point = decode_utf8(text.substr(begin, 4)).front();
  return is_letter(point) || is_number(point);
}

/// AUTOMATIC1111's grammar, read from left to right.
class A1111Reader {
 public:
  explicit A1111Reader(std::string_view text) : text_(text) {}

  std::vector<PromptSegment> read() {
    while (at_ < text_.size()) step();
    // A bracket that is never closed reaches to the end.
    for (const std::size_t open : round_.begins) multiply(open, kRoundFactor);
    for (const std::size_t open : square_.begins) multiply(open, kSquareFactor);
    if (segments_.empty()) segments_.emplace_back();
    return merged();
  }

 private:
  void step() {
    const char c = text_[at_];
    switch (c) {
      case '\\':  // what it escapes is text; before anything else it vanishes
        ++at_;
        if (at_ < text_.size() && std::string_view("()[]\\").find(text_[at_]) != std::string_view::npos) {
          add(text_.substr(at_++, 1));
        }
        return;
      case '(':
        open(round_);
        break;
      case '[':
        open(square_);
        break;
      case ')':
        close(round_, kRoundFactor);
        break;
      case ']':
        close(square_, kSquareFactor);
        break;
      case ':':
        if (close_with_weight()) return;
        add(":");
        break;
      default:
        add_run();
        return;
    }
    ++at_;
  }

  /// Brackets of one kind that are open. The cap on them bounds the work for each segment.
  struct OpenBrackets {
    std::vector<std::size_t> begins;  // the segment that comes first in each
    std::size_t too_deep = 0;         // further ones, taken as text
  };

  void open(OpenBrackets& brackets) {
    if (brackets.begins.size() < kDeepest) {
      brackets.begins.push_back(segments_.size());
    } else {
      ++brackets.too_deep;
      add(text_.substr(at_, 1));
    }
  }

  void close(OpenBrackets& brackets, double factor) {
    if (brackets.too_deep > 0 || brackets.begins.empty()) {
      if (brackets.too_deep > 0) --brackets.too_deep;
      add(text_.substr(at_, 1));
    } else {
      multiply(brackets.begins.back(), factor);
      brackets.begins.pop_back();
    }
  }

  /// ":1.3)" at the end of a round bracket.
  bool close_with_weight() {
    if (round_.begins.empty() || round_.too_deep > 0) return false;
    const std::size_t end = text_.find_first_not_of("+-.0123456789 \t\n\v\f\r", at_ + 1);
    if (end == std::string_view::npos || text_[end] != ')') return false;
    const auto weight = read_number(text_.substr(at_ + 1, end - at_ - 1));
    if (!weight) return false;
    multiply(round_.begins.back(), *weight);
    round_.begins.pop_back();
    at_ = end + 1;
    return true;
  }

  /// Text up to the next special character, divided at each BREAK.
  void add_run() {
    constexpr std::string_view kBreak = "BREAK";
    const std::size_t end = std::min(text_.find_first_of("\\()[]:", at_), text_.size());
    std::string_view run = text_.substr(at_, end - at_);
    at_ = end;
    std::size_t from = 0;
    while (true) {
      const std::size_t found = run.find(kBreak, from);
      if (found == std::string_view::npos) break;
      const std::size_t behind = found + kBreak.size();
      from = behind;
      if ((found > 0 && is_word(run, found - 1)) || (behind < run.size() && is_word(run, behind))) continue;
      add(without_trailing_space(run.substr(0, found)));
      run = without_leading_space(run.substr(behind));
      from = 0;
      break_pending_ = true;
      if (run.empty()) add(run);
    }
    if (!run.empty()) add(run);
  }

  void add(std::string_view text) {
    segments_.push_back({std::string(text), 1, break_pending_});
    break_pending_ = false;
  }

  void multiply(std::size_t from, double factor) {
    for (std::size_t i = from; i < segments_.size(); ++i) {
      segments_[i].weight = std::clamp(segments_[i].weight * factor, -kMostProduct, kMostProduct);
    }
  }

  std::vector<PromptSegment> merged() {
    std::vector<PromptSegment> result;
    for (PromptSegment& segment : segments_) {
      segment.weight = clamped(segment.weight);
      if (!result.empty() && !segment.begins_chunk && result.back().weight == segment.weight) {
        result.back().text += segment.text;
      } else {
        result.push_back(std::move(segment));
      }
    }
    return result;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  bool break_pending_ = false;
  std::vector<PromptSegment> segments_;
  OpenBrackets round_, square_;
};

/// Leaves out <kind:arguments>, which names networks and not what is drawn.
std::string without_tags(std::string_view text) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    if (text[at] == '<') {
      std::size_t colon = at + 1;
      while (colon < text.size() && static_cast<unsigned char>(text[colon]) < 0x80 && is_word(text, colon)) ++colon;
      const std::size_t end = text.find('>', colon);
      if (colon > at + 1 && colon < text.size() && text[colon] == ':' && end != std::string_view::npos &&
          end > colon + 1) {
        at = end + 1;
        continue;
      }
    }
    result += text[at++];
  }
  return result;
}

// ComfyUI hides escaped brackets behind these while it looks for the others.
constexpr char kHidden = '\0', kHiddenClose = '\1', kHiddenOpen = '\2';

std::string hide_escaped(std::string_view text) {
  std::string result;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '\\' && at + 1 < text.size() && (text[at + 1] == '(' || text[at + 1] == ')')) {
      result += kHidden;
      result += text[++at] == '(' ? kHiddenOpen : kHiddenClose;
    } else {
      result += text[at];
    }
  }
  return result;
}

std::string show_escaped(std::string_view text) {
  std::string result;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char next = at + 1 < text.size() ? text[at + 1] : 'x';
    if (text[at] == kHidden && (next == kHiddenOpen || next == kHiddenClose)) {
      result += next == kHiddenOpen ? '(' : ')';
      ++at;
    } else {
      result += text[at];
    }
  }
  return result;
}

void read_comfyui(std::string_view text, double weight, std::size_t depth, std::vector<PromptSegment>& segments) {
  const auto finish = [&](std::string_view item) {
    if (item.empty()) return;
    if (item.size() < 2 || item.front() != '(' || item.back() != ')' || depth == kDeepest) {
      segments.push_back({show_escaped(item), clamped(weight)});
      return;
    }
    std::string_view inner = item.substr(1, item.size() - 2);
    double inner_weight = std::min(weight * kRoundFactor, kMostProduct);
    const std::size_t colon = inner.rfind(':');
    if (colon != std::string_view::npos && colon > 0) {
      if (const auto number = read_number(inner.substr(colon + 1))) {
        inner_weight = *number;
        inner = inner.substr(0, colon);
      }
    }
    read_comfyui(inner, inner_weight, depth + 1, segments);
  };
  int open = 0;  // negative behind a bracket that closes nothing: the next opening one is text then
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '(') {
      if (open == 0) {
        finish(text.substr(begin, at - begin));
        begin = at;
      }
      ++open;
    } else if (text[at] == ')' && --open == 0) {
      finish(text.substr(begin, at + 1 - begin));
      begin = at + 1;
    }
  }
  finish(text.substr(begin));
}

}  // namespace

std::optional<PromptSyntax> find_prompt_syntax(std::string_view name) {
  if (name == "plain") return PromptSyntax::kPlain;
  if (name == "a1111") return PromptSyntax::kA1111;
  if (name == "comfyui") return PromptSyntax::kComfyUi;
  return std::nullopt;
}

std::vector<PromptSegment> parse_prompt(std::string_view prompt, PromptSyntax syntax) {
  std::vector<PromptSegment> segments;
  switch (syntax) {
    case PromptSyntax::kPlain:
      segments.push_back({std::string(prompt)});
      break;
    case PromptSyntax::kA1111: {
      const std::string text = without_tags(prompt);
      segments = A1111Reader(text).read();
      break;
    }
    case PromptSyntax::kComfyUi:
      read_comfyui(hide_escaped(prompt), 1, 0, segments);
      break;
  }
  return segments;
}

}  // namespace octavo::text
