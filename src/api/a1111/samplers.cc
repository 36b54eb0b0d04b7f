#include "api/a1111/samplers.h"

#include <algorithm>

#include "api/a1111/endpoints.h"
#include "api/json_writer.h"

namespace octavo::api::a1111 {
namespace {

/// Samplers of A1111 1.10 that mean nothing on a flow or that we do not have, lower case, and the nearest that we may
/// have: the same order, and noise where they add noise.
struct Elsewhere {
  std::string_view name;
  std::string_view nearest;
};
constexpr Elsewhere kElsewhere[] = {
    {"dpm++ sde", "dpmpp_2m_sde"},
    {"k_dpmpp_sde", "dpmpp_2m_sde"},
    {"dpm++ 2s a", "euler_ancestral"},
    {"k_dpmpp_2s_a", "euler_ancestral"},
    {"lms", "dpmpp_2m"},
    {"k_lms", "dpmpp_2m"},
    {"plms", "dpmpp_2m"},
    {"dpm2", "heun"},
    {"k_dpm_2", "heun"},
    {"dpm2 a", "euler_ancestral"},
    {"k_dpm_2_a", "euler_ancestral"},
    {"dpm fast", "dpmpp_2m"},
    {"k_dpm_fast", "dpmpp_2m"},
    {"dpm adaptive", "dpmpp_2m"},
    {"k_dpm_ad", "dpmpp_2m"},
    {"restart", "heun"},
    {"ddim cfg++", "euler"},
    {"default", ""},
};

/// The model's sampler that stands for `name`, which is none of its own; null when nobody has it.
const generation::NamedChoice* stand_in(std::string_view name, const generation::Capabilities& can) {
  const generation::NamedChoice known{.name = "", .label = std::string(name), .aliases = {}, .schedule = ""};
  for (const Elsewhere& each : kElsewhere) {
    if (!known.answers_to(each.name)) continue;
    const generation::NamedChoice* nearest = generation::find_choice(can.samplers, each.nearest);
    return nearest != nullptr ? nearest : &can.samplers.front();
  }
  return nullptr;
}

/// Schedulers of A1111 that we do not have: no error, "Automatic" (as any unknown one).
constexpr std::string_view kOtherSchedulers[] = {"automatic", "uniform", "align_your_steps", "align your steps"};

bool is_scheduler(std::string_view name, const generation::Capabilities& can) {
  if (generation::find_choice(can.schedules, name) != nullptr) return true;
  const generation::NamedChoice given{.name = "", .label = std::string(name), .aliases = {}, .schedule = ""};
  return std::any_of(std::begin(kOtherSchedulers), std::end(kOtherSchedulers),
                     [&](std::string_view other) { return given.answers_to(other); });
}

/// `text` as a sampler alone or a sampler and a scheduler; names of A1111's that we lack count.
generation::SamplerAndSchedule find_any(std::string_view text, const generation::Capabilities& can) {
  generation::SamplerAndSchedule found = generation::find_sampler_and_schedule(text, can);
  if (found.sampler == nullptr) found.sampler = stand_in(text, can);
  for (std::size_t space = text.find(' '); found.sampler == nullptr && space != std::string_view::npos;
       space = text.find(' ', space + 1)) {
    const std::string_view sampler = text.substr(0, space), scheduler = text.substr(space + 1);
    if (!is_scheduler(scheduler, can)) continue;
    found.sampler = generation::find_choice(can.samplers, sampler);
    if (found.sampler == nullptr) found.sampler = stand_in(sampler, can);
    found.schedule = generation::find_choice(can.schedules, scheduler);
  }
  return found;
}

}  // namespace

std::optional<SamplerChoice> choose_sampler(std::string_view sampler, std::string_view scheduler,
                                            const generation::Capabilities& can) {
  constexpr std::size_t kLongestName = 128;  // no name is longer, and the search is quadratic
  if (sampler.size() > kLongestName || can.samplers.empty()) return std::nullopt;
  SamplerChoice choice;
  const generation::NamedChoice* schedule = generation::find_choice(can.schedules, scheduler);
  if (sampler.empty()) {
    choice.sampler = can.samplers.front().name;
  } else {
    const generation::SamplerAndSchedule found = find_any(sampler, can);
    if (found.sampler == nullptr) return std::nullopt;
    choice.sampler = found.sampler->name;
    if (scheduler.empty()) schedule = found.schedule;
  }
  if (schedule != nullptr) choice.schedule = schedule->name;
  return choice;
}

void samplers(const Service& service, const std::shared_ptr<http::Exchange>& exchange) {
  JsonWriter json;
  json.begin_array();
  for (const generation::NamedChoice& sampler : service.capabilities.samplers) {
    json.begin_object().key("name").string(sampler.label).key("aliases").begin_array();
    for (const std::string& alias : sampler.aliases) json.string(alias);
    json.end_array().key("options").begin_object().key("scheduler").string(sampler.schedule);
    if (sampler.uses_eta) json.key("uses_ensd").string("True");
    json.end_object().end_object();
  }
  http::Response response;
  response.body = json.end_array().take();
  exchange->respond(std::move(response));
}

void schedulers(const Service& service, const std::shared_ptr<http::Exchange>& exchange) {
  JsonWriter json;
  const auto row = [&](const generation::NamedChoice& scheduler) {
    json.begin_object().key("name").string(scheduler.name).key("label").string(scheduler.label).key("aliases");
    if (scheduler.aliases.empty()) {
      json.null();
    } else {
      json.begin_array();
      for (const std::string& alias : scheduler.aliases) json.string(alias);
      json.end_array();
    }
    json.key("default_rho").real(scheduler.name == "karras" ? 7 : -1).key("need_inner_model").boolean(false);
    json.end_object();
  };
  json.begin_array();
  row({.name = "automatic", .label = "Automatic", .aliases = {}, .schedule = ""});
  for (const generation::NamedChoice& schedule : service.capabilities.schedules) row(schedule);
  http::Response response;
  response.body = json.end_array().take();
  exchange->respond(std::move(response));
}

}  // namespace octavo::api::a1111
