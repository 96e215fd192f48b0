#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tools/ptxsim/error.h"
#include "tools/ptxsim/machine/machine.h"

namespace ptxsim {
namespace {

// What the environment says wrongly is told: a default instead would go unseen.
TEST(Options, ThreadsOfTheEnvironment) {
  setenv("PTXSIM_THREADS", "3", 1);
  EXPECT_EQ(Options::from_environment().threads, 3);
  for (const std::string text : {"foo", "0", "-2", "3x", "99999999999"}) {
    setenv("PTXSIM_THREADS", text.c_str(), 1);
    try {
      Options::from_environment();
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()), "PTXSIM_THREADS: expected a number of threads, found '" + text + "'");
    }
  }
  unsetenv("PTXSIM_THREADS");
  EXPECT_EQ(Options::from_environment().threads, Options{}.threads);
}

}  // namespace
}  // namespace ptxsim
