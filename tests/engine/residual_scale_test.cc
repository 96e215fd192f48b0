#include "engine/residual_scale.h"

#include <gtest/gtest.h>

#include "engine/fusion.h"
#include "engine/runner.h"
#include "tests/engine/comparison.h"
#include "tests/engine/error_text.h"
#include "tests/engine/models/golden.h"
#include "tests/engine/plain_backend.h"
#include "tests/engine/random_graph.h"

namespace cpvt {
namespace {

const std::vector<std::string> kWanted{"features", "logits"};

TEST(ResidualScale, ChangesNoLogitOfAnyModel) {
  const std::shared_ptr<const Backend> backend = make_plain_backend();
  double worst = 0;
  for (const std::string name : {"gap", "token", "gap-before-k27", "learned", "sincos-gap", "none-gap-eps"}) {
    const Golden golden(name);
    Runner plain(std::make_shared<const Executable>(golden.model()->graph(), backend));
    const Graph graph = scale_residual(golden.model()->graph(), 0x1p-4F);
    Runner scaled(std::make_shared<const Executable>(graph, backend));
    Runner fused(std::make_shared<const Executable>(fuse_norms(graph, name == "gap" ? 0 : 1000, true, true), backend));
    for (const ImageView& image : golden.images()) {
      plain.run({&image, 1}, kWanted);
      for (Runner* runner : {&scaled, &fused}) {
        runner->run({&image, 1}, kWanted);
        for (const std::string& output : kWanted) {
          const double error = relative_error(runner->output(output), plain.output(output));
          worst = std::max(worst, error);
          EXPECT_LE(error, 1e-6) << name << ": " << output;
        }
      }
    }
  }
  std::printf("worst error %.1e\n", worst);
}

// That the stream itself is smaller: 16 times less in what the first block's norm reads.
TEST(ResidualScale, ScalesTheStream) {
  const Golden golden("gap");
  const Graph graph = scale_residual(golden.model()->graph(), 0x1p-4F);
  Graph cut;
  Graph whole;
  for (const auto& [from, to] : {std::pair{&graph, &cut}, std::pair{&golden.model()->graph(), &whole}}) {
    for (const Node& node : from->nodes()) to->add(node.name, node.op, node.inputs);
    for (const Node& node : from->nodes()) {
      if (node.name == "blocks.0.norm2") to->set_output("stream", node.inputs[0]);
    }
  }
  const std::shared_ptr<const Backend> backend = make_plain_backend();
  Runner scaled(std::make_shared<const Executable>(cut, backend));
  Runner plain(std::make_shared<const Executable>(whole, backend));
  const std::vector<std::string> wanted{"stream"};
  scaled.run({&golden.images()[0], 1}, wanted);
  plain.run({&golden.images()[0], 1}, wanted);
  std::vector<float> times_16(scaled.output("stream").begin(), scaled.output("stream").end());
  for (float& v : times_16) v *= 16;
  EXPECT_LE(relative_error(times_16, plain.output("stream")), 1e-6);
}

TEST(ResidualScale, RefusesOtherReadersByName) {
  Graph graph;
  const ValueId x = graph.add("embed", ops::PatchEmbed{shape_only({8, 1, 2, 2}), shape_only({8}), {}});
  const ops::LayerNorm norm{shape_only({8}), shape_only({8}), 1e-6F};
  const ops::Linear linear{shape_only({8, 8}), shape_only({8})};
  const ValueId y = graph.add("norm", norm, {x});
  graph.set_output("y", y);
  EXPECT_NO_THROW(scale_residual(graph, 0.5F));

  Graph reads = graph;
  reads.add("fc", linear, {x});
  EXPECT_EQ(error_text([&] { scale_residual(reads, 0.5F); }),
            "fc: input 0 comes from the residual stream: only LayerNorm may read it, only residuals join it");
  Graph joins = graph;
  joins.add("add", ops::Add{8}, {x, y});
  EXPECT_EQ(error_text([&] { scale_residual(joins, 0.5F); }),
            "add: input 1 does not come from the residual stream: only LayerNorm may read it, only residuals join it");
  Graph gives = graph;
  gives.set_output("x", x);
  EXPECT_EQ(error_text([&] { scale_residual(gives, 0.5F); }),
            "output x: comes from the residual stream, which is scaled");
}

}  // namespace
}  // namespace cpvt
