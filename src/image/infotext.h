// Infotext: the "parameters" text of AUTOMATIC1111, written into every PNG and into the API's `info.infotexts`.
//
//   prompt, possibly of many lines
//   Negative prompt: ...            (left out when empty)
//   Steps: 28, Sampler: Euler, CFG scale: 7.0, Seed: 1234, Size: 256x256
//
// Prompts are written raw. A value that holds a comma, a newline or a colon is written as a JSON string.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace octavo::image {

struct InfotextItem {
  std::string key;
  std::string value;
  bool operator==(const InfotextItem&) const = default;
};

struct Infotext {
  std::string prompt;
  std::string negative_prompt;
  std::vector<InfotextItem> items;  // in order of appearance
  bool operator==(const Infotext&) const = default;
};

/// White space at both ends of the whole text is stripped. An item whose key equals its value is written as the key.
std::string format_infotext(const Infotext& infotext);

/// Reads the text back by A1111's rules: the last line is the line of items only when it holds at least three;
/// from a line that begins with "Negative prompt:" on, text belongs to the negative prompt. Never fails: text that
/// is something else becomes the prompt. Every key is kept as written ("Size" is not split).
Infotext parse_infotext(std::string_view text);

/// The value as format_infotext writes it: raw, or a JSON string (non-ASCII kept).
std::string quote_infotext_value(std::string_view value);

/// A double as Python's str() prints it: 7.0, 0.35, 1e-05, nan, inf.
std::string python_float(double value);

}  // namespace octavo::image
