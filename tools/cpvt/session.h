#pragma once

#include <memory>
#include <string>

#include "engine/model.h"
#include "tools/cpvt/messages.h"
#include "tools/cpvt/options.h"

namespace cpvt::cli {

/// What most commands begin with: the model that the flags name, on the device and in the dtype that they name.
struct Session {
  /// Throws Error for a model that cannot be read, and a device or dtype that this build has not.
  Session(const Options& options, Messages& messages);

  const Config& config() const { return model->config(); }

  std::string device;
  std::string dtype;
  int threads;
  std::shared_ptr<const Model> model;
  std::shared_ptr<const Executable> executable;
};

/// `inputs`, and the files that the model was read from.
std::vector<std::filesystem::path> files_read(const Options& options, const Session& session,
                                              std::vector<std::filesystem::path> inputs);

/// How many threads the flags mean.
int thread_count(const Options& options);

}  // namespace cpvt::cli
