#include "engine/model.h"

#include <exception>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "engine/fusion.h"
#include "engine/models/cpvt.h"
#include "engine/residual_scale.h"

namespace cpvt {

std::shared_ptr<const Model> Model::load(const std::filesystem::path& path,
                                         const std::optional<std::filesystem::path>& config) {
  return std::make_shared<const Model>(Checkpoint::load(path, config));
}

Model::Model(Checkpoint checkpoint) : checkpoint_(std::move(checkpoint)), graph_(fuse(build_cpvt(checkpoint_))) {}

namespace {

Graph formed(const Graph& graph, const GraphForm& form) {
  const Graph scaled = form.residual_scale == 1 ? graph : scale_residual(graph, form.residual_scale);
  return fuse_norms(scaled, form.widest_normalised_linear, form.normalised_pool, form.normalised_peg);
}

}  // namespace

Executable::Executable(std::shared_ptr<const Model> model, std::shared_ptr<const Backend> backend)
    : Executable(model->graph(), std::move(backend)) {
  model_ = std::move(model);
  model_->checkpoint().drop_pages();  // what the kernels need of the file they have packed
}

Executable::Executable(const Graph& graph, std::shared_ptr<const Backend> backend)
    : graph_(formed(graph, backend->form())), backend_(std::move(backend)) {
  for (const Node& node : graph_.nodes()) {
    try {
      kernels_.push_back(std::visit([&](const auto& op) { return backend_->bind(op); }, node.op));
    } catch (const Error& error) {
      throw Error("{}: {}", node.name, error.what());
    } catch (const std::exception& error) {  // no memory, or a library's words for that
      throw Error("{}: cannot pack its weights: {} (after {} of weights)", node.name, error.what(),
                  bytes_text(weight_bytes_));
    }
    weight_bytes_ += kernels_.back().weight_bytes;
  }
}

}  // namespace cpvt
