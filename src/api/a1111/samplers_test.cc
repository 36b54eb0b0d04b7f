#include "api/a1111/samplers.h"

#include <gtest/gtest.h>

namespace octavo::api::a1111 {
namespace {

generation::NamedChoice sampler(const char* name, const char* label, const char* alias) {
  return {.name = name, .label = label, .aliases = {alias}, .schedule = "normal"};
}

/// "sampler/schedule", or "?" for an unknown name.
std::string chosen(std::string_view name, std::string_view scheduler = "") {
  generation::Capabilities can;
  can.samplers = {sampler("euler", "Euler", "k_euler"), sampler("euler_ancestral", "Euler a", "k_euler_a"),
                  sampler("heun", "Heun", "k_heun"), sampler("dpmpp_2m", "DPM++ 2M", "k_dpmpp_2m")};
  can.schedules = {{.name = "normal", .label = "Normal", .aliases = {}, .schedule = ""},
                   {.name = "sgm_uniform", .label = "SGM Uniform", .aliases = {"sgmuniform"}, .schedule = ""},
                   {.name = "karras", .label = "Karras", .aliases = {}, .schedule = ""}};
  const auto choice = choose_sampler(name, scheduler, can);
  return choice ? choice->sampler + "/" + choice->schedule : "?";
}

TEST(ChooseSampler, takes_names_labels_and_aliases_of_any_case) {
  for (const char* name : {"euler", "Euler", "EULER", "k_euler"}) EXPECT_EQ(chosen(name), "euler/") << name;
  for (const char* name : {"Euler a", "k_euler_a", "euler_ancestral"}) EXPECT_EQ(chosen(name), "euler_ancestral/");
  EXPECT_EQ(chosen("k_heun"), "heun/");
  EXPECT_EQ(chosen(""), "euler/");
}

TEST(ChooseSampler, what_a1111_has_and_we_have_not_becomes_the_nearest) {
  EXPECT_EQ(chosen("PLMS"), "dpmpp_2m/");
  EXPECT_EQ(chosen("DPM2 a Karras"), "euler_ancestral/karras");
  EXPECT_EQ(chosen("DPM2"), "heun/");
  EXPECT_EQ(chosen("DPM++ SDE"), "euler/") << "its nearest is not among the model's: the default";
  EXPECT_EQ(chosen("Default"), "euler/");
}

TEST(ChooseSampler, a_scheduler_may_follow_the_name_and_a_given_one_wins) {
  EXPECT_EQ(chosen("Euler SGM Uniform"), "euler/sgm_uniform");
  EXPECT_EQ(chosen("DPM++ 2M Karras"), "dpmpp_2m/karras");
  EXPECT_EQ(chosen("Euler a Align Your Steps"), "euler_ancestral/") << "known to A1111, not to us: automatic";
  EXPECT_EQ(chosen("Heun normal", "SGM Uniform"), "heun/sgm_uniform");
}

TEST(ChooseSampler, unknown_schedulers_are_automatic) {
  EXPECT_EQ(chosen("Euler", "automatic"), "euler/");
  EXPECT_EQ(chosen("Euler", "no such"), "euler/");
  EXPECT_EQ(chosen("Euler", "SGMUniform"), "euler/sgm_uniform");
}

TEST(ChooseSampler, unknown_names_are_not_guessed) {
  for (const char* name : {"nope", "Euler nope", " ", "euler  normal", "\xC3\xA9"})
    EXPECT_EQ(chosen(name), "?") << name;
  EXPECT_EQ(chosen(std::string(1000000, ' ')), "?");
}

}  // namespace
}  // namespace octavo::api::a1111
