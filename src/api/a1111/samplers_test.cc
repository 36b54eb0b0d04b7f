#include "api/a1111/samplers.h"

#include <gtest/gtest.h>

namespace octavo::api::a1111 {
namespace {

/// "sampler/schedule", or "?" for an unknown name.
std::string chosen(std::string_view sampler, std::string_view scheduler = "") {
  generation::Capabilities can;
  can.samplers = {"euler", "heun"};
  can.schedules = {"normal", "sgm_uniform"};
  const auto choice = choose_sampler(sampler, scheduler, can);
  return choice ? choice->sampler + "/" + choice->schedule : "?";
}

TEST(ChooseSampler, takes_names_labels_and_aliases_of_any_case) {
  for (const char* name : {"euler", "Euler", "EULER", "k_euler"}) EXPECT_EQ(chosen(name), "euler/") << name;
  EXPECT_EQ(chosen("k_heun"), "heun/");
  EXPECT_EQ(chosen(""), "euler/");
}

TEST(ChooseSampler, what_a1111_has_and_we_have_not_becomes_the_default) {
  for (const char* name : {"Euler a", "DPM++ 2M", "UniPC", "PLMS", "DDIM", "Restart"}) {
    EXPECT_EQ(chosen(name), "euler/") << name;
  }
}

TEST(ChooseSampler, a_scheduler_may_follow_the_name_and_a_given_one_wins) {
  EXPECT_EQ(chosen("Euler SGM Uniform"), "euler/sgm_uniform");
  EXPECT_EQ(chosen("DPM++ 2M Karras"), "euler/");
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
}

}  // namespace
}  // namespace octavo::api::a1111
