#include <gtest/gtest.h>

#include <new>
#include <stdexcept>

#include "base/error.h"
#include "engine/model.h"
#include "tests/engine/error_text.h"
#include "tests/engine/random_graph.h"

namespace cpvt {
namespace {

/// A device whose memory ends at the first Linear, and whose library says so in its own words.
class FullBackend final : public Backend {
 public:
  std::string name() const override { return "full"; }
  size_t free_memory() const override { return 0; }
  std::unique_ptr<Stream> make_stream() const override { return nullptr; }

  Kernel bind(const ops::PatchEmbed& /*op*/) const override { return packed(); }
  Kernel bind(const ops::AddPosition& /*op*/) const override { return packed(); }
  Kernel bind(const ops::Peg& /*op*/) const override { throw std::bad_alloc(); }
  Kernel bind(const ops::LayerNorm& /*op*/) const override { throw Error("no such form"); }
  Kernel bind(const ops::Linear& /*op*/) const override {
    throw std::runtime_error("could not create a memory object");
  }
  Kernel bind(const ops::Gelu& /*op*/) const override { return packed(); }
  Kernel bind(const ops::Add& /*op*/) const override { return packed(); }
  Kernel bind(const ops::Attention& /*op*/) const override { return packed(); }
  Kernel bind(const ops::Pool& /*op*/) const override { return packed(); }

 private:
  static Kernel packed() {
    Kernel kernel;
    kernel.weight_bytes = size_t{3} << 19;
    return kernel;
  }
};

std::string error_of_binding(Op op) {
  Graph graph;
  const ValueId x = graph.add("embed", ops::PatchEmbed{shape_only({8, 3, 4, 4}), shape_only({8}), std::nullopt});
  graph.set_output("y", graph.add("blocks.3.part", std::move(op), {x}));
  return error_text([&] { const Executable executable(graph, std::make_shared<const FullBackend>()); });
}

TEST(Executable, NamesTheNodeWhoseWeightsFindNoRoom) {
  EXPECT_EQ(error_of_binding(ops::Linear{shape_only({8, 8}), shape_only({8})}),
            "blocks.3.part: cannot pack its weights: could not create a memory object (after 1.5 MiB of weights)");
  EXPECT_EQ(error_of_binding(ops::Peg{shape_only({8, 1, 3, 3}), shape_only({8})}),
            "blocks.3.part: cannot pack its weights: std::bad_alloc (after 1.5 MiB of weights)");
  EXPECT_EQ(error_of_binding(ops::LayerNorm{shape_only({8}), shape_only({8}), 1e-6F}), "blocks.3.part: no such form");
}

}  // namespace
}  // namespace cpvt
