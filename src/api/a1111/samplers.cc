#include "api/a1111/samplers.h"

#include <algorithm>

#include "api/a1111/endpoints.h"
#include "api/json_writer.h"
#include "generation/infotext.h"

namespace octavo::api::a1111 {
namespace {

/// Names A1111 1.10 knows, lower case. `canonical` is the same thing in our tables, if it may exist there.
struct KnownName {
  std::string_view name;
  std::string_view canonical;
};

constexpr KnownName kSamplers[] = {
    {"euler", "euler"},
    {"k_euler", "euler"},
    {"flowmatcheulerdiscretescheduler", "euler"},
    {"heun", "heun"},
    {"k_heun", "heun"},
    {"dpm++ 2m", "dpmpp_2m"},
    {"k_dpmpp_2m", "dpmpp_2m"},
    {"dpm++ sde", ""},
    {"dpm++ 2m sde", ""},
    {"dpm++ 2m sde heun", ""},
    {"dpm++ 2s a", ""},
    {"dpm++ 3m sde", ""},
    {"euler a", ""},
    {"k_euler_a", ""},
    {"k_euler_ancestral", ""},
    {"lms", ""},
    {"dpm2", ""},
    {"dpm2 a", ""},
    {"dpm fast", ""},
    {"dpm adaptive", ""},
    {"restart", ""},
    {"ddim", ""},
    {"ddim cfg++", ""},
    {"plms", ""},
    {"unipc", ""},
    {"lcm", ""},
    {"k_lcm", ""},
    {"default", ""},
};

constexpr KnownName kSchedulers[] = {
    {"automatic", ""},
    {"normal", "normal"},
    {"simple", "simple"},
    {"sgm_uniform", "sgm_uniform"},
    {"sgm uniform", "sgm_uniform"},
    {"sgmuniform", "sgm_uniform"},
    {"beta", "beta"},
    {"karras", ""},
    {"exponential", ""},
    {"polyexponential", ""},
    {"uniform", ""},
    {"kl_optimal", ""},
    {"kl optimal", ""},
    {"align_your_steps", ""},
    {"align your steps", ""},
    {"ddim", ""},
};

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return result;
}

/// The entry of `offered` that `name` (lower case) means, directly or through `known`; "" when it is known but not
/// offered; nothing when it is unknown.
template <std::size_t N>
std::optional<std::string> find_offered(std::string_view name, const KnownName (&known)[N],
                                        const std::vector<std::string>& offered) {
  for (const std::string& each : offered) {
    if (lower(each) == name || lower(generation::display_name(each)) == name) return each;
  }
  for (const KnownName& each : known) {
    if (each.name != name) continue;
    const auto found = std::find(offered.begin(), offered.end(), each.canonical);
    return found == offered.end() ? std::string() : *found;
  }
  return std::nullopt;
}

}  // namespace

std::optional<SamplerChoice> choose_sampler(std::string_view sampler, std::string_view scheduler,
                                            const generation::Capabilities& can) {
  SamplerChoice choice;
  if (!scheduler.empty()) choice.schedule = find_offered(lower(scheduler), kSchedulers, can.schedules).value_or("");
  const std::string fallback = can.samplers.empty() ? std::string() : can.samplers.front();
  const std::string name = lower(sampler);
  if (name.empty()) {
    choice.sampler = fallback;
    return choice;
  }
  if (const auto found = find_offered(name, kSamplers, can.samplers)) {
    choice.sampler = found->empty() ? fallback : *found;
    return choice;
  }
  for (std::size_t space = name.find(' '); space != std::string::npos; space = name.find(' ', space + 1)) {
    const auto found = find_offered(std::string_view(name).substr(0, space), kSamplers, can.samplers);
    const auto suffix = find_offered(std::string_view(name).substr(space + 1), kSchedulers, can.schedules);
    if (!found || !suffix) continue;
    choice.sampler = found->empty() ? fallback : *found;
    if (scheduler.empty()) choice.schedule = *suffix;
    return choice;
  }
  return std::nullopt;
}

std::vector<std::string> sampler_aliases(std::string_view canonical) {
  std::vector<std::string> aliases;
  for (const KnownName& known : kSamplers) {
    if (known.canonical == canonical && known.name != lower(generation::display_name(canonical))) {
      aliases.emplace_back(known.name);
    }
  }
  return aliases;
}

void samplers(const Service& service, const std::shared_ptr<http::Exchange>& exchange) {
  JsonWriter json;
  json.begin_array();
  for (const std::string& name : service.capabilities.samplers) {
    json.begin_object().key("name").string(generation::display_name(name)).key("aliases").begin_array();
    for (const std::string& alias : sampler_aliases(name)) json.string(alias);
    json.end_array().key("options").begin_object().end_object().end_object();
  }
  http::Response response;
  response.body = json.end_array().take();
  exchange->respond(std::move(response));
}

void schedulers(const Service& service, const std::shared_ptr<http::Exchange>& exchange) {
  JsonWriter json;
  const auto row = [&](std::string_view name, std::string_view label) {
    json.begin_object().key("name").string(name).key("label").string(label).key("aliases").null();
    json.key("default_rho").real(-1).key("need_inner_model").boolean(false).end_object();
  };
  json.begin_array();
  row("automatic", "Automatic");
  for (const std::string& name : service.capabilities.schedules) row(name, generation::display_name(name));
  http::Response response;
  response.body = json.end_array().take();
  exchange->respond(std::move(response));
}

}  // namespace octavo::api::a1111
