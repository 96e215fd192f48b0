#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "tools/cpvt/answering.h"
#include "tools/cpvt/messages.h"
#include "tools/cpvt/options.h"
#include "tools/cpvt/session.h"

namespace cpvt::cli {

/// Decodes, prepares and runs picture files as the flags say, decoding overlapped with the network, and hands out the
/// answers in the order of `paths`. Warnings and failures go to `messages`, and its progress bar moves, where it was
/// started. A picture whose logits are not finite counts as failed. Returns how many failed.
size_t answer_pictures(const Session& session, const Options& options, const std::vector<std::string>& paths,
                       Wanted wanted, Messages& messages, const std::function<void(const Answer&)>& receive);

}  // namespace cpvt::cli
