#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace cpvt::cli {

/// What a command does once its flags are parsed. Returns the exit code: 0 done, 1 some inputs failed. Throws Error for
/// wrong usage or a wrong model, which is exit code 2.
using Action = std::function<int()>;

// Each adds its arguments and flags to `app`, and returns what is to be done with them. One file per command.
Action add_info(CLI::App& app);
Action add_classify(CLI::App& app);
Action add_run(CLI::App& app);
Action add_features(CLI::App& app);
Action add_eval(CLI::App& app);
Action add_bench(CLI::App& app);

inline constexpr int kDone = 0;
inline constexpr int kSomeInputsFailed = 1;
inline constexpr int kWrongUsage = 2;

}  // namespace cpvt::cli
