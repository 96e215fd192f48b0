#include "tools/cpvt/session.h"

#include <sched.h>

#include "base/error.h"

namespace cpvt::cli {

namespace {

std::string chosen_device(const Options& options, Messages& messages) {
  if (options.device == "cuda" || options.device == "sim") {
    throw Error("device {} is not part of this build; there is cpu", options.device);
  }
  if (options.device == "auto") messages.note("device auto: cpu, the only one of this build");
  if (options.dtype != "fp32") throw Error("dtype {}: device cpu has fp32 only, so far", options.dtype);
  return "cpu";
}

}  // namespace

Session::Session(const Options& options, Messages& messages)
    : device(chosen_device(options, messages)), dtype(options.dtype), threads(thread_count(options)) {
  model = Model::load(options.model, options.config);
  for (const std::string& note : model->checkpoint().notes()) messages.note(note);
  executable = std::make_shared<const Executable>(model, make_cpu_backend(threads));
}

int thread_count(const Options& options) {
  if (options.threads > 0) return options.threads;
  cpu_set_t allowed;  // containers and taskset leave a process fewer than the machine has
  CPU_ZERO(&allowed);
  return sched_getaffinity(0, sizeof(allowed), &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
}

}  // namespace cpvt::cli
