#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace cpvt::efficiency {

/// A forward pass of CPVT that is looked at: of CPVT-GAP with a PEG of 3x3, where nothing else is said.
struct Pass {
  std::string model;  // "Ti", "S", "B", or such a name and what is else, "Ti-k7"
  int width, heads;
  int pixels, batch;
  std::string dtype;
  int peg_kernel = 3;
  bool class_token = false;

  std::string name() const;  // "Ti 224 px, batch 32, fp16"
};

/// Those that have budgets, in the order of the page.
std::vector<Pass> passes();

/// An operator of a pass, and what those like it in other blocks have in common with it.
struct Operator {
  std::string name;      // "blocks.*.attn.qkv"
  int count;             // how many there are in the pass
  double multiply_adds;  // of one, as mathematics needs them; 0 where it is no product
};

/// What the engine makes of a pass on the CUDA backend: its different operators, in the order of their first ones.
/// Opens the simulator. `folder` is for a while the home of a model's file.
std::vector<Operator> operators(const Pass& pass, const std::filesystem::path& folder);

/// Runs one of the operators, the first of its name, alone on the simulator.
void run_operator(const Pass& pass, const std::string& name, const std::filesystem::path& folder);

}  // namespace cpvt::efficiency
