#include "engine/models/cpvt.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace cpvt {

Graph build_cpvt(const Checkpoint& checkpoint) {
  const Config& c = checkpoint.config();
  const auto tensor = [&](const std::string& name) { return checkpoint.tensor(name); };
  Graph g;

  const auto norm = [&](const std::string& name, ValueId x) {
    return g.add(name,
                 ops::LayerNorm{tensor(name + ".weight"), tensor(name + ".bias"), static_cast<float>(c.layer_norm_eps)},
                 {x});
  };
  const auto linear = [&](const std::string& name, ValueId x) {
    return g.add(name, ops::Linear{tensor(name + ".weight"), tensor(name + ".bias")}, {x});
  };
  const auto add = [&](const std::string& name, ValueId a, ValueId b) {
    return g.add(name, ops::Add{c.embed_dim}, {a, b});
  };
  const auto attention = [&](const std::string& name, ValueId x) {
    const float scale = 1 / std::sqrt(static_cast<float>(c.head_dim()));
    x = linear(name + ".qkv", x);
    x = g.add(name, ops::Attention{c.num_heads, c.head_dim(), scale}, {x});
    return linear(name + ".proj", x);
  };
  const auto mlp = [&](const std::string& name, ValueId x) {
    x = linear(name + ".fc1", x);
    x = g.add(name + ".act", ops::Gelu{c.hidden_dim()}, {x});
    return linear(name + ".fc2", x);
  };
  const auto peg_after = [&](int block, ValueId x) {
    const auto place = std::find(c.peg.after.begin(), c.peg.after.end(), block);
    if (c.pos_embed != Config::PosEmbed::kPeg || place == c.peg.after.end()) return x;
    const std::string name = fmt::format("pos_block.{}", place - c.peg.after.begin());
    return g.add(name, ops::Peg{tensor(name + ".proj.0.weight"), tensor(name + ".proj.0.bias")}, {x});
  };

  // x = [cls_token, patch_embed(image)] + pos_embed
  ops::PatchEmbed embed{tensor("patch_embed.proj.weight"), tensor("patch_embed.proj.bias"), {}};
  if (c.has_class_token()) embed.class_token = tensor("cls_token");
  if (!c.pretrained_cfg.mean.empty() && !c.pretrained_cfg.std.empty()) {
    embed.mean = c.pretrained_cfg.mean;
    embed.std = c.pretrained_cfg.std;
  }
  ValueId x = g.add("patch_embed", embed);
  if (c.pos_embed == Config::PosEmbed::kLearned) {
    x = g.add("pos_embed", ops::AddPosition{tensor("pos_embed"), c.embed_dim}, {x});
  } else if (c.pos_embed == Config::PosEmbed::kSincos) {
    x = g.add("pos_embed", ops::AddPosition{{}, c.embed_dim}, {x});
  }
  x = peg_after(-1, x);

  // x += attn(norm1(x)); x += mlp(norm2(x)); x = peg(x)
  for (int i = 0; i < c.depth; ++i) {
    const std::string block = fmt::format("blocks.{}", i);
    x = add(block + ".attn.add", x, attention(block + ".attn", norm(block + ".norm1", x)));
    x = add(block + ".mlp.add", x, mlp(block + ".mlp", norm(block + ".norm2", x)));
    x = peg_after(i, x);
  }

  // logits = head(norm(x)[cls]), or head(mean over tokens of norm(x))
  x = norm("norm", x);
  g.set_output("features", x);
  const auto kind = c.has_class_token() ? ops::Pool::Kind::kClassToken : ops::Pool::Kind::kMean;
  x = g.add("pool", ops::Pool{kind, c.embed_dim}, {x});
  g.set_output("logits", linear("head", x));
  return g;
}

}  // namespace cpvt
