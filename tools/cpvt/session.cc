#include "tools/cpvt/session.h"

#include <fmt/format.h>
#include <sched.h>

#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "engine/backends/cuda.h"

namespace cpvt::cli {

namespace {

/// `device`: the CPU, as whoever chose it is to be told of it.
std::unique_ptr<Backend> cpu_backend(const Options& options, std::string_view device) {
  if (options.dtype != "fp32") throw Error("dtype {}: device {} has fp32 only, so far", options.dtype, device);
  return make_cpu_backend(thread_count(options));
}

std::unique_ptr<Backend> cuda_backend(const Options& options) {
  return make_cuda_backend(CudaRuntime::kReal, options.dtype, options.gemm == "own" ? Gemm::kOwn : Gemm::kCublasLt,
                           thread_count(options));
}

/// --gemm chooses among what device cuda alone has.
void check_gemm(const Options& options, std::string_view device) {
  if (options.gemm == "own") return;
  throw Error("gemm {}: expected device cuda, found {}", options.gemm, device);
}

/// The device that the flags name and what it is called; auto: CUDA where there is a usable device, else the CPU.
std::pair<std::string, std::unique_ptr<Backend>> chosen_device(const Options& options, Messages& messages) {
  if (options.device == "cpu" || options.device == "sim") check_gemm(options, options.device);
  if (options.device == "sim") return {"sim", make_cuda_backend(CudaRuntime::kSimulator, options.dtype)};
  if (options.device == "cuda") return {"cuda", cuda_backend(options)};
  if (options.device == "cpu") return {"cpu", cpu_backend(options, "cpu")};
  std::unique_ptr<Backend> backend;
  try {
    backend = cuda_backend(options);
  } catch (const Error& error) {  // no plugin, no device, or none that can be used
    messages.note(fmt::format("device auto: cpu ({})", error.what()));
    check_gemm(options, "cpu, which is what auto came to");
    return {"cpu", cpu_backend(options, fmt::format("cpu, which is what auto came to ({}),", error.what()))};
  }
  messages.note("device auto: " + backend->name());
  return {"cuda", std::move(backend)};
}

/// Refuses weights for which there is no room before they are packed: the plan, which knows the rest, comes after.
void check_weights_fit(const Options& options, const Model& model, const Backend& backend) {
  const size_t each = options.dtype == "fp32" ? 4 : options.dtype == "int8" ? 1 : 2;
  const size_t least = static_cast<size_t>(model.checkpoint().parameters()) * each;
  const size_t limit = options.memory_limit != 0 ? options.memory_limit : backend.free_memory();
  if (least <= limit) return;
  throw Error("{}: needs at least {} for the weights in {}, {} {}", options.model.string(), bytes_text(least),
              options.dtype, options.memory_limit != 0 ? "the limit is" : "there are", bytes_text(limit));
}

}  // namespace

Session::Session(const Options& options, Messages& messages) : dtype(options.dtype), threads(thread_count(options)) {
  auto [name, backend] = chosen_device(options, messages);
  device = name;
  model = Model::load(options.model, options.config);
  const Checkpoint& checkpoint = model->checkpoint();
  for (const std::string& assumption : checkpoint.assumptions()) {
    messages.warning(fmt::format("{}: {}", checkpoint.weights_path().string(), assumption));
  }
  for (const std::string& note : checkpoint.notes()) messages.note(note);
  check_weights_fit(options, *model, *backend);
  executable = std::make_shared<const Executable>(model, std::move(backend));
}

std::vector<std::filesystem::path> files_read(const Options& options, const Session& session,
                                              std::vector<std::filesystem::path> inputs) {
  const std::filesystem::path& weights = session.model->checkpoint().weights_path();
  inputs.push_back(weights);
  inputs.push_back(options.config.value_or(weights.parent_path() / "config.json"));
  return inputs;
}

int thread_count(const Options& options) {
  if (options.threads > 0) return options.threads;
  cpu_set_t allowed;  // containers and taskset leave a process fewer than the machine has
  CPU_ZERO(&allowed);
  return sched_getaffinity(0, sizeof(allowed), &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
}

}  // namespace cpvt::cli
