#include "sampling/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace octavo::sampling {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::HasSubstr;

const ScheduleRow& row(std::string_view name) { return *find_schedule(name).value(); }

TEST(Schedule, short_runs_have_the_published_sigmas) {
  const auto near = [](float value) { return FloatNear(value, 6e-7f); };
  EXPECT_THAT(make_schedule(row("normal"), 4).sigmas,
              ElementsAre(1.0f, near(0.857692f), near(0.602151f), near(0.008929f), 0.0f));
  EXPECT_THAT(make_schedule(row("sgm_uniform"), 4).sigmas,
              ElementsAre(1.0f, near(0.900359f), near(0.751121f), near(0.502985f), 0.0f));
  EXPECT_THAT(make_schedule(row("simple"), 4).sigmas, ElementsAre(1.0f, near(0.9f), near(0.75f), near(0.5f), 0.0f));
}

TEST(Schedule, every_row_falls_to_zero_for_every_step_count_and_shift) {
  for (const ScheduleRow& schedule_row : schedule_rows()) {
    const bool counts_levels = schedule_row.name == "beta" || schedule_row.name == "ddim_uniform";
    for (const double shift : {0.1, 0.5, 1.0, 1.7, 3.0, 100.0}) {
      for (int steps = 1; steps <= 200; ++steps) {
        const Schedule schedule = make_schedule(schedule_row, steps, {.shift = shift, .train_steps = 1000});
        SCOPED_TRACE(fmt::format("{}, {} steps, shift {}", schedule_row.name, steps, shift));
        if (!counts_levels) {
          ASSERT_EQ(schedule.steps(), steps);
          ASSERT_NEAR(schedule.sigmas.front(), 1.0f, 3e-6);  // the table is in float, as in diffusers
        }
        ASSERT_GE(schedule.steps(), 1);
        ASSERT_LE(schedule.steps(), steps * 6 / 5 + 1);
        ASSERT_EQ(schedule.sigmas.size(), static_cast<std::size_t>(schedule.steps()) + 1);
        ASSERT_LE(schedule.sigmas.front(), 1.000003f);
        ASSERT_EQ(schedule.sigmas.back(), 0.0f);
        ASSERT_LT(schedule.below_one, 1.0f);
        ASSERT_GT(schedule.below_one, schedule.sigmas[1]);
        for (std::size_t i = 0; i + 1 < schedule.sigmas.size(); ++i) {
          ASSERT_GT(schedule.sigmas[i], schedule.sigmas[i + 1]);
          ASSERT_EQ(schedule.timesteps[i], schedule.sigmas[i] * 1000.0f);
        }
      }
    }
  }
}

TEST(Schedule, those_that_count_levels_have_the_steps_that_comfyui_has) {
  EXPECT_EQ(make_schedule(row("beta"), 20).steps(), 20);
  EXPECT_EQ(make_schedule(row("beta"), 200).steps(), 199);
  EXPECT_EQ(make_schedule(row("ddim_uniform"), 20).steps(), 20);
  EXPECT_EQ(make_schedule(row("ddim_uniform"), 28).steps(), 29);
}

TEST(Schedule, karras_exponential_and_kl_optimal_span_the_training_table) {
  for (const char* name : {"karras", "exponential", "kl_optimal"}) {
    const Schedule schedule = make_schedule(row(name), 10);
    EXPECT_EQ(schedule.sigmas.front(), 1.0f) << name;
    EXPECT_NEAR(schedule.sigmas[9], 0.00299401, 1e-8) << name;
  }
}

TEST(Schedule, the_low_end_is_shifted_twice_in_normal_as_in_diffusers) {
  const Schedule schedule = make_schedule(row("normal"), 28);
  EXPECT_NEAR(schedule.sigmas[27], 0.0089286, 1e-6);  // shift(shift(0.001)), not shift(0.001) = 0.002994
}

TEST(Schedule, strength_keeps_the_end_and_at_least_one_step) {
  const Schedule whole = make_schedule(row("normal"), 10);
  const auto steps = [&](double strength) { return cut_to_strength(whole, strength).steps(); };
  EXPECT_EQ(steps(1.0), 10);
  EXPECT_EQ(steps(0.6), 6);
  EXPECT_EQ(steps(0.55), 6);  // diffusers: int(10 - 5.5) = 4 are left out
  EXPECT_EQ(steps(1e-9), 1);
  const Schedule end = cut_to_strength(whole, 0.3);
  EXPECT_EQ(end.sigmas, std::vector<float>(whole.sigmas.end() - 4, whole.sigmas.end()));
  EXPECT_EQ(end.timesteps, std::vector<float>(whole.timesteps.end() - 3, whole.timesteps.end()));
  EXPECT_EQ(end.below_one, whole.below_one);
}

TEST(Schedule, names_labels_and_aliases_find_their_row_in_any_case) {
  EXPECT_EQ(row("").name, "normal");
  for (const char* name : {"normal", "Normal", "diffusers", "DEFAULT"}) EXPECT_EQ(row(name).name, "normal");
  for (const char* name : {"sgm_uniform", "SGM Uniform", "sgmuniform"}) EXPECT_EQ(row(name).name, "sgm_uniform");
  EXPECT_EQ(row("Simple").name, "simple");
  EXPECT_EQ(row("DDIM").name, "ddim_uniform");
  EXPECT_EQ(row("KL Optimal").name, "kl_optimal");
}

TEST(Schedule, no_two_rows_answer_to_one_name) {
  for (const ScheduleRow& schedule_row : schedule_rows()) {
    EXPECT_EQ(row(schedule_row.name).name, schedule_row.name);
    EXPECT_EQ(row(schedule_row.label).name, schedule_row.name);
    for (const std::string_view alias : schedule_row.aliases) EXPECT_EQ(row(alias).name, schedule_row.name);
  }
}

TEST(Schedule, an_unknown_name_is_an_error_that_lists_the_known_ones) {
  const Status status = find_schedule(std::string(100000, 'k')).status();
  EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(status.subject(), "schedule");
  EXPECT_THAT(status.message(), HasSubstr("normal, sgm_uniform, simple, beta, karras"));
  EXPECT_LT(status.message().size(), 250u);
}

}  // namespace
}  // namespace octavo::sampling
