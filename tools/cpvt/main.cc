#include <fcntl.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <iostream>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/printable.h"
#include "tools/cpvt/commands.h"
#include "tools/cpvt/messages.h"

namespace {

using cpvt::cli::Action;

struct Command {
  std::string_view name;
  std::string_view purpose;
  Action (*add)(CLI::App& app);
};

// The program's commands, in the order in which --help lists them.
constexpr std::array kCommands{
    Command{"info", "Say what a model is, and what it needs at a size", cpvt::cli::add_info},
    Command{"classify", "Name what is in pictures", cpvt::cli::add_classify},
    Command{"run", "Run the network on tensors of a file", cpvt::cli::add_run},
    Command{"features", "Write the tokens and logits of pictures", cpvt::cli::add_features},
    Command{"eval", "Measure the accuracy on a folder of pictures, one folder per class", cpvt::cli::add_eval},
    Command{"bench", "Measure the time of a forward pass", cpvt::cli::add_bench},
};

constexpr std::string_view kFooter =
    "Results go to stdout, everything else to stderr.\n"
    "Exit codes: 0 done, 1 some inputs failed (the others are answered), 2 wrong usage or model.";

std::string command_names() {
  std::string names;
  for (const Command& command : kCommands) names += (names.empty() ? "" : ", ") + std::string(command.name);
  return names;
}

int fail(std::string_view who, std::string_view why) {
  cpvt::cli::write_to_stderr(fmt::format("{}: {}\n", who, cpvt::printable(why, "\n")));
  return cpvt::cli::kWrongUsage;
}

/// A caller may have closed a standard stream; the next file to be opened would get its number, and our results.
/// A placeholder that can only be used the other way round turns their use into an error instead.
void occupy_standard_streams() {
  constexpr std::array kWrongDirection{O_WRONLY, O_RDONLY, O_RDONLY};
  for (int fd = 0; fd < 3; ++fd) {
    if (fcntl(fd, F_GETFD) < 0) static_cast<void>(open("/dev/null", kWrongDirection.at(static_cast<size_t>(fd))));
  }
}

/// What CLI11 found wrong, in words of our own where its are not the user's.
std::string wrong_usage(const CLI::App& app, const CLI::ParseError& error) {
  const std::vector<std::string> unknown = app.remaining(true);
  if (!unknown.empty()) return fmt::format("not expected: {}", fmt::join(unknown, " "));
  if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr && app.get_subcommands().empty()) {
    return fmt::format("expected a command: {}", command_names());
  }
  return error.what();
}

int run(int argc, const char* const* argv) {
  CLI::App app{"cpvt: vision transformers with conditional position encodings, at any image size", "cpvt"};
  app.set_version_flag("--version", CPVT_VERSION);
  app.footer(std::string(kFooter));
  app.require_subcommand(1);

  std::vector<Action> actions;
  for (const Command& command : kCommands) {
    CLI::App* subcommand = app.add_subcommand(std::string(command.name), std::string(command.purpose));
    actions.push_back(command.add(*subcommand));
  }

  const std::string_view first = argc > 1 ? argv[1] : "";
  if (first.empty()) {
    return fail("cpvt", fmt::format("expected a command: {}; cpvt --help says more", command_names()));
  }
  const auto named_first = [&](const Command& command) { return command.name == first; };
  if (first.front() != '-' && std::none_of(kCommands.begin(), kCommands.end(), named_first)) {
    return fail("cpvt", fmt::format("no command '{}'; there are {}", first, command_names()));
  }

  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {  // --help, --version
    const int code = app.exit(e);
    if (!std::cout.flush()) throw cpvt::Error("cannot write to standard output");
    return code;
  } catch (const CLI::ParseError& e) {
    const std::vector<CLI::App*> parsed = app.get_subcommands();
    const std::string who = parsed.empty() ? "cpvt" : "cpvt " + parsed.front()->get_name();
    return fail(who, fmt::format("{}; {} --help says more", wrong_usage(app, e), who));
  }

  for (size_t i = 0; i < kCommands.size(); ++i) {
    if (app.got_subcommand(std::string(kCommands.at(i).name))) return actions[i]();
  }
  return cpvt::cli::kWrongUsage;  // require_subcommand leaves no way here
}

}  // namespace

int main(int argc, char** argv) {
  occupy_standard_streams();
  try {
    return run(argc, argv);
  } catch (const cpvt::Error& e) {
    return fail("cpvt", e.what());
  } catch (const std::bad_alloc&) {
    return fail("cpvt", "out of memory");
  } catch (const std::exception& e) {
    return fail("cpvt", e.what());
  }
}
