#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "engine/backends/backend.h"
#include "engine/graph.h"
#include "weights/checkpoint.h"

namespace cpvt {

/// A network with its weights: what is computed, on no particular device and at no particular size. Immutable.
class Model {
 public:
  /// A model folder or weights file (weights/checkpoint.h). Throws Error.
  static std::shared_ptr<const Model> load(const std::filesystem::path& path,
                                           const std::optional<std::filesystem::path>& config = {});

  explicit Model(Checkpoint checkpoint);

  const Checkpoint& checkpoint() const { return checkpoint_; }
  const Config& config() const { return checkpoint_.config(); }
  const Graph& graph() const { return graph_; }  // fused

 private:
  Checkpoint checkpoint_;
  Graph graph_;
};

/// A model bound to a device: the graph in the form that the device wants, a kernel per node. Immutable and shared
/// between runners; keeps the backend and the model alive.
class Executable {
 public:
  Executable(std::shared_ptr<const Model> model, std::shared_ptr<const Backend> backend);
  /// Any graph, for tests.
  Executable(const Graph& graph, std::shared_ptr<const Backend> backend);

  const Graph& graph() const { return graph_; }
  const Backend& backend() const { return *backend_; }
  const Kernel& kernel(size_t node) const { return kernels_.at(node); }
  size_t weight_bytes() const { return weight_bytes_; }

 private:
  std::shared_ptr<const Model> model_;
  Graph graph_;
  std::shared_ptr<const Backend> backend_;
  std::vector<Kernel> kernels_;
  size_t weight_bytes_ = 0;
};

}  // namespace cpvt
