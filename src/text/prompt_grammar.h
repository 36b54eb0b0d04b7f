// The grammars of weighted prompts: what a person types, taken apart into stretches of text with a weight each.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace octavo::text {

enum class PromptSyntax {
  kPlain,    // every character stands for itself, as in diffusers
  kA1111,    // AUTOMATIC1111: (x) and [x] multiply by 1.1 and 1/1.1, (x:1.3) by 1.3; nested ones multiply; \( is a
             // bracket; BREAK begins a new chunk; <lora:name:1> and the like are left out
  kComfyUi,  // ComfyUI: (x) multiplies by 1.1, (x:1.3) is 1.3 whatever surrounds it; \( and \) are brackets
};

/// By the names in generation::kPromptSyntaxes: "plain", "a1111", "comfyui".
std::optional<PromptSyntax> find_prompt_syntax(std::string_view name);

struct PromptSegment {
  std::string text;
  double weight = 1;          // within kMostWeight of zero
  bool begins_chunk = false;  // BREAK stands before it
  bool operator==(const PromptSegment&) const = default;
};

/// Larger weights, which only mistakes and deep nesting ask for, are taken as this one: numbers stay finite.
inline constexpr double kMostWeight = 100;

/// Total: every text has a reading, brackets that do not match are text or reach to the end as in the original.
/// Neighbours of equal weight are one segment in kA1111. At least one segment in kPlain and kA1111.
std::vector<PromptSegment> parse_prompt(std::string_view prompt, PromptSyntax syntax);

}  // namespace octavo::text
