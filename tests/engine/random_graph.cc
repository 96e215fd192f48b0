#include "tests/engine/random_graph.h"

#include <cmath>
#include <string>

namespace cpvt {

int64_t pick(Random& random, int64_t least, int64_t most) {
  return std::uniform_int_distribution<int64_t>(least, most)(random);
}

Tensor random_tensor(Random& random, std::vector<int64_t> shape, float deviation) {
  std::normal_distribution<float> normal(0, deviation);
  const int64_t size = element_count(shape);
  std::shared_ptr<float[]> data(new float[static_cast<size_t>(size)]);
  for (int64_t i = 0; i < size; ++i) data[i] = normal(random);
  return {std::move(shape), data};
}

Tensor shape_only(std::vector<int64_t> shape) { return {std::move(shape), nullptr}; }

Graph random_graph(Random& random) {
  Graph graph;
  // Matrices that keep the size of what they multiply, however long the chain.
  const auto tensor = [&](std::vector<int64_t> shape) {
    const float deviation = shape.size() == 2 ? 1 / std::sqrt(static_cast<float>(shape[1])) : 0.5F;
    return random_tensor(random, std::move(shape), deviation);
  };
  const bool class_token = pick(random, 0, 1) == 1;

  const int64_t first_width = 4 * pick(random, 1, 6);
  ops::PatchEmbed embed{tensor({first_width, 1, kRandomGraphPatch, kRandomGraphPatch}), tensor({first_width}),
                        std::nullopt};
  if (class_token) embed.class_token = tensor({1, 1, first_width});
  std::vector<ValueId> made{graph.add("embed", embed)};

  const int64_t operators = pick(random, 3, 30);
  for (int64_t i = 0; i < operators; ++i) {
    const std::string name = "node." + std::to_string(i);
    // Mostly the last value, so that there are chains; sometimes any, so that there are long lifetimes.
    const int64_t reach = pick(random, 0, 4) == 0 ? std::ssize(made) : 1;
    const ValueId x = made[made.size() - static_cast<size_t>(pick(random, 1, reach))];
    const auto [rows, width] = graph.value(x);
    const bool tokens = rows == Rows::kTokens;
    std::vector<ValueId> alike;
    for (const ValueId id : made) {
      if (graph.value(id).rows == rows && graph.value(id).width == width) alike.push_back(id);
    }
    const auto any_alike = [&] { return alike[static_cast<size_t>(pick(random, 0, std::ssize(alike) - 1))]; };

    switch (pick(random, 0, 13)) {
      case 0:
        made.push_back(graph.add(name, ops::LayerNorm{tensor({width}), tensor({width}), 1e-5F}, {x}));
        break;
      case 1:
      case 8:
        made.push_back(graph.add(name, ops::Gelu{width}, {x}));
        break;
      case 2:
      case 9:
        made.push_back(graph.add(name, ops::Add{width}, {x, any_alike()}));
        break;
      case 3: {  // with its residual
        const ValueId input = any_alike();
        ops::Linear linear{tensor({width, width}), tensor({width})};
        linear.residual = true;
        made.push_back(graph.add(name, linear, {input, x}));
        break;
      }
      case 4:
        if (!tokens) break;
        made.push_back(graph.add(name, ops::Peg{tensor({width, 1, 3, 3}), tensor({width})}, {x}));
        break;
      case 5: {
        if (!tokens) break;
        ops::AddPosition position{std::nullopt, width};
        if (pick(random, 0, 1) == 1) position.learned = tensor({1, 9 + (class_token ? 1 : 0), width});
        if (position.learned || width % 4 == 0) made.push_back(graph.add(name, position, {x}));
        break;
      }
      case 6: {
        if (!tokens || width > 24) break;
        const ValueId qkv = graph.add(name + ".qkv", ops::Linear{tensor({3 * width, width}), tensor({3 * width})}, {x});
        const int64_t head_dim = width / 2;  // widths are even
        const float scale = 1 / std::sqrt(static_cast<float>(head_dim));
        made.push_back(graph.add(name, ops::Attention{2, head_dim, scale}, {qkv}));
        break;
      }
      case 7:
        if (!tokens) break;
        made.push_back(graph.add(
            name,
            ops::Pool{class_token && pick(random, 0, 1) == 1 ? ops::Pool::Kind::kClassToken : ops::Pool::Kind::kMean,
                      width},
            {x}));
        break;
      default: {
        const int64_t out = pick(random, 0, 1) == 0 ? width : 2 * pick(random, 1, 12);
        made.push_back(graph.add(name, ops::Linear{tensor({out, width}), tensor({out})}, {x}));
      }
    }
  }
  graph.set_output("last", made.back());
  for (int64_t i = pick(random, 0, 3); i > 0; --i) {
    graph.set_output("output." + std::to_string(i), made[static_cast<size_t>(pick(random, 0, std::ssize(made) - 1))]);
  }
  return graph;
}

std::vector<ImageSize> random_sizes(Random& random) {
  std::vector<ImageSize> sizes;
  for (int64_t i = pick(random, 1, 5); i > 0; --i) {
    const auto height = static_cast<int>(pick(random, 2, 14));
    const auto width = static_cast<int>(pick(random, 2, 14));
    sizes.push_back({height, width});
  }
  return sizes;
}

}  // namespace cpvt
