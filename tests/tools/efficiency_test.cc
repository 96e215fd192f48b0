#include <gmock/gmock.h>

#include <cmath>
#include <sstream>

#include "base/error.h"
#include "tools/efficiency/budgets.h"
#include "tools/efficiency/page.h"

namespace cpvt::efficiency {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Launch product() {
  Launch l;
  l.pass = "Ti 224 px, batch 32, fp16";
  l.op = "blocks.*.attn.qkv";
  l.kernel = "linear_tiles<TensorProduct<__half, 128, 96, 4, 1>, 3, true>";
  l.count = 12;
  l.estimate_us = 4.5;
  l.limiter = "instruction issue";
  l.instructions = 1000000;
  l.tensor_percent = 20;
  l.tensor_work = 1.02;
  l.device_bytes = 1e7;
  l.l2_bytes = 2e7;
  l.load_sectors = 16;
  l.store_sectors = 16;
  l.wavefronts = 1e5;
  l.registers = 200;
  l.shared_bytes = 86016;
  l.resident = 2;
  return l;
}

Comparison changed(double Launch::*counter, double value) {
  const Launch budget = product();
  Launch found = budget;
  found.*counter = value;
  return compare({&budget, 1}, {&found, 1});
}

TEST(Budgets, TakeWhatIsWithinTheSlack) {
  EXPECT_THAT(changed(&Launch::instructions, 1030000).exceeded, IsEmpty());
  EXPECT_THAT(changed(&Launch::registers, 208).exceeded, IsEmpty());
  EXPECT_THAT(changed(&Launch::load_sectors, 15.8).exceeded, IsEmpty());
}

TEST(Budgets, RefuseWhatIsWorse) {
  EXPECT_THAT(
      changed(&Launch::instructions, 1031000).exceeded,
      ElementsAre("Ti 224 px, batch 32, fp16: blocks.*.attn.qkv: linear_tiles<TensorProduct<__half, 128, 96, 4, 1>, "
                  "3, true>: instructions: found 1031000, budget at most 1000000"));
  EXPECT_EQ(changed(&Launch::conflicts, 1).exceeded.size(), 1U);
  EXPECT_EQ(changed(&Launch::local_bytes, 8).exceeded.size(), 1U);
  EXPECT_EQ(changed(&Launch::resident, 1).exceeded.size(), 1U);
  EXPECT_EQ(changed(&Launch::tensor_percent, 10).exceeded.size(), 1U);
  EXPECT_EQ(changed(&Launch::tensor_work, 1.14).exceeded.size(), 1U);
  EXPECT_EQ(changed(&Launch::load_sectors, 8).exceeded.size(), 1U);
  EXPECT_EQ(changed(&Launch::l2_bytes, std::nan("")).exceeded.size(), 1U);
}

TEST(Budgets, OfConflictsAndSpillsAreZeroWhateverTheFileSays) {
  for (double Launch::*counter : {&Launch::conflicts, &Launch::local_bytes}) {
    Launch launch = product();
    launch.*counter = 8;
    EXPECT_THAT(compare({&launch, 1}, {&launch, 1}).exceeded, ElementsAre(HasSubstr("found 8, budget at most 0")));
  }
}

TEST(Budgets, TellWhatIsBetter) {
  const Comparison result = changed(&Launch::instructions, 900000);
  EXPECT_THAT(result.exceeded, IsEmpty());
  EXPECT_THAT(result.better, ElementsAre(HasSubstr("instructions: found 900000")));
}

TEST(Budgets, BelongToOneKernelEach) {
  const Launch budget = product();
  Launch other = budget;
  other.kernel = "linear_tiles<TensorProduct<__half, 64, 64, 2, 2>, 4, true>";
  EXPECT_THAT(compare({&budget, 1}, {&other, 1}).exceeded, ElementsAre(HasSubstr("another kernel than the budget's")));
  const std::vector<Launch> twice = {budget, other};
  EXPECT_THAT(compare({&budget, 1}, twice).exceeded, ElementsAre(HasSubstr("has no budget")));
  EXPECT_THAT(compare(twice, {&budget, 1}).exceeded, ElementsAre(HasSubstr("has a budget but no launch")));
  Launch new_operator = budget;
  new_operator.op = "pool";
  EXPECT_THAT(compare({&budget, 1}, {&new_operator, 1}).exceeded,
              ElementsAre(HasSubstr("has no budget"), HasSubstr("has a budget but no launch")));
}

TEST(Budgets, AreReadAsTheyWereWritten) {
  std::vector<Launch> launches = {product(), product()};
  launches[1].pass = "S 224 px, batch 1, fp16";
  launches[1].limiter = "L2";
  std::stringstream text;
  write_budgets(text, launches);
  const std::vector<Launch> read = read_budgets(text, "budgets.txt");
  ASSERT_EQ(read.size(), 2U);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(read[i].pass, launches[i].pass);
    EXPECT_EQ(read[i].op, launches[i].op);
    EXPECT_EQ(read[i].kernel, launches[i].kernel);
    EXPECT_EQ(read[i].limiter, launches[i].limiter);
    for (const Counter& counter : counters()) {
      EXPECT_EQ(read[i].*counter.value, launches[i].*counter.value) << counter.name;
    }
  }
}

TEST(Budgets, RefuseTextThatIsNoTable) {
  std::stringstream text;
  write_budgets(text, std::vector{product()});
  std::string broken = text.str();
  broken.replace(broken.find("1000000"), 7, "1000x00");
  std::istringstream in(broken);
  try {
    read_budgets(in, "budgets.txt");
    FAIL() << "took it";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("instructions: expected a number, found '1000x00'"));
  }
}

TEST(EfficiencyPage, AddsUpAPass) {
  std::vector<Launch> launches = {product(), product()};
  launches[1].op = "head";
  launches[1].count = 1;
  launches[1].estimate_us = 10;
  std::ostringstream page;
  write_page(page, launches);
  EXPECT_THAT(page.str(), HasSubstr("| Ti | 224 px, batch 32, fp16 | 13 | **64** | 500,000 |"));
  EXPECT_THAT(page.str(), HasSubstr("Estimates, not measurements"));
  std::ostringstream picture;
  write_picture(picture, launches);
  EXPECT_THAT(picture.str(), HasSubstr("64 µs, 13 kernels"));
}

}  // namespace
}  // namespace cpvt::efficiency
