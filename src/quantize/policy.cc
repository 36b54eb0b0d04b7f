#include "quantize/policy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <boost/json.hpp>

namespace octavo::quantize {
namespace {

constexpr std::array<std::string_view, 6> kRuleMembers = {"pattern", "quantise", "reason",
                                                          "format",  "weights",  "activations"};

/// A member that may be left out and is a word of a flag.
template <typename Value>
Status read_word(const boost::json::object& rule, std::string_view member,
                 Result<Value> (*parse)(const std::string& word, const std::string& flag), const std::string& place,
                 std::optional<Value>& into) {
  const auto* word = rule.if_contains(member);
  if (word == nullptr) return {};
  if (!word->is_string()) return data_corruption(place, fmt::format("\"{}\" is not text", member));
  const auto value = parse(std::string(word->get_string()), place);
  if (!value.ok()) return data_corruption(place, fmt::format("\"{}\": {}", member, value.status().message()));
  into = *value;
  return {};
}

}  // namespace

Policy default_policy() {
  return {
      {"*", false, "not one of the blocks' products"},
      {"transformer_blocks.*.attn.*", true, "attention's products"},
      {"transformer_blocks.*.attn2.*", true, "attention's products"},
      {"transformer_blocks.*.ff.net.*", true, "feed-forward products"},
      {"transformer_blocks.*.ff_context.net.*", true, "feed-forward products"},
      {"transformer_blocks.*.norm1*.linear", true,
       "makes modulations: a third of the weights, so stored in 8 bits; multiplied in 16, because an error in a gate "
       "or a "
       "scale reaches every token",
       DType::kI8, ScaleGrain::kRow, Activations::kNone},
      {"time_text_embed.*", false, "feeds every modulation; runs once a picture"},
      {"context_embedder", false, "every block reads the embedded text; runs once a picture"},
      {"pos_embed.*", false, "the first product: its error is in the residual stream of every block"},
      {"norm_out.linear", false, "makes the last modulation"},
      {"proj_out", false, "writes the velocity itself; a thousandth of the arithmetic"},
  };
}

bool matches(std::string_view pattern, std::string_view layer) {
  // Greedy with one way back: the last star takes one more character when what follows it does not fit.
  std::size_t p = 0, l = 0, star = std::string_view::npos, resume = 0;
  while (l < layer.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = l;
    } else if (p < pattern.size() && pattern[p] == layer[l]) {
      ++p;
      ++l;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      l = ++resume;
    } else {
      return false;
    }
  }
  return std::all_of(pattern.begin() + static_cast<std::ptrdiff_t>(p), pattern.end(), [](char c) { return c == '*'; });
}

Decision decide(const Policy& policy, std::string_view layer) {
  const auto found = std::find_if(policy.rbegin(), policy.rend(),
                                  [&](const PolicyRule& rule) { return matches(rule.pattern, layer); });
  if (found == policy.rend()) return {false, "no rule of the policy names it"};
  return {found->quantise, found->reason, found->format, found->weight_grain, found->activations};
}

Result<Policy> policy_from_json(const boost::json::object& json, const std::string& file) {
  const auto* rules = json.if_contains("rules");
  if (rules == nullptr || !rules->is_array()) return data_corruption(file, "\"rules\" is not a list");
  Policy policy;
  for (const auto& value : rules->get_array()) {
    const std::string place = fmt::format("{}: rules[{}]", file, policy.size());
    if (!value.is_object()) return data_corruption(place, "is not an object");
    const auto& object = value.get_object();
    for (const auto& member : object) {
      const std::string_view key = member.key();
      if (std::find(kRuleMembers.begin(), kRuleMembers.end(), key) != kRuleMembers.end()) continue;
      return data_corruption(place, fmt::format("has \"{}\", which is none of {}", key, fmt::join(kRuleMembers, ", ")));
    }
    const auto* pattern = object.if_contains("pattern");
    const auto* quantise = object.if_contains("quantise");
    const auto* reason = object.if_contains("reason");
    if (pattern == nullptr || !pattern->is_string()) return data_corruption(place, "\"pattern\" is not text");
    if (quantise == nullptr || !quantise->is_bool()) return data_corruption(place, "\"quantise\" is not true or false");
    if (reason != nullptr && !reason->is_string()) return data_corruption(place, "\"reason\" is not text");
    PolicyRule rule{std::string(pattern->get_string()), quantise->get_bool(), {}};
    rule.reason = reason != nullptr ? std::string(reason->get_string()) : "rule " + rule.pattern + " of " + file;
    OCTAVO_RETURN_IF_ERROR(read_word(object, "format", parse_format, place, rule.format));
    OCTAVO_RETURN_IF_ERROR(read_word(object, "weights", parse_weight_grain, place, rule.weight_grain));
    OCTAVO_RETURN_IF_ERROR(read_word(object, "activations", parse_activations, place, rule.activations));
    policy.push_back(std::move(rule));
  }
  if (policy.empty()) return data_corruption(file, "\"rules\" is empty: nothing would be quantised");
  return policy;
}

boost::json::object to_json(const Policy& policy) {
  boost::json::array rules;
  for (const PolicyRule& rule : policy) {
    boost::json::object one{{"pattern", rule.pattern}, {"quantise", rule.quantise}, {"reason", rule.reason}};
    if (rule.format) one["format"] = format_word(*rule.format);
    if (rule.weight_grain) one["weights"] = weight_grain_word(*rule.weight_grain);
    if (rule.activations) one["activations"] = activations_word(*rule.activations);
    rules.push_back(std::move(one));
  }
  return {{"rules", std::move(rules)}};
}

std::vector<std::string> linear_layers(const weights::SourcePart& part) {
  constexpr std::string_view kWeight = ".weight";
  std::vector<std::string> layers;
  for (const weights::SourceTensor& tensor : part.tensors) {
    if (tensor.shape.rank() != 2 || !tensor.name.ends_with(kWeight)) continue;
    layers.push_back(tensor.name.substr(0, tensor.name.size() - kWeight.size()));
  }
  return layers;
}

Result<Recipe> plan_recipe(const weights::SourcePart& part, const Policy& policy, const RecipeOptions& options) {
  Recipe recipe{.format = options.format,
                .activation_format = options.activation_format,
                .weight_grain = options.weight_grain,
                .activations = options.activations};
  for (std::string& name : linear_layers(part)) {
    Decision decision = decide(policy, name);
    recipe.layers.push_back({.layer = std::move(name),
                             .quantised = decision.quantise,
                             .reason = std::move(decision.reason),
                             .format = decision.format.value_or(options.format),
                             .activation_format = options.activation_format,
                             .weight_grain = decision.weight_grain.value_or(options.weight_grain),
                             .activations = decision.activations.value_or(options.activations)});
  }
  if (std::none_of(recipe.layers.begin(), recipe.layers.end(), [](const LayerRecipe& one) { return one.quantised; })) {
    return invalid_argument("--policy", "keeps every layer in 16 bits: nothing would be quantised");
  }
  return recipe;
}

}  // namespace octavo::quantize
