#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "weights/config.h"

namespace cpvt {

/// One tensor that a model has.
struct TensorSpec {
  std::string name;                    // canonical
  std::vector<std::string> spellings;  // accepted in checkpoints, the canonical name first
  std::vector<int64_t> shape;
};

/// The one table of a CPVT's (or plain ViT's) tensors: all required, none other allowed.
/// Canonical names, in the order of the forward pass, with D = embed_dim, P = patch_size, H = hidden_dim:
///
///   patch_embed.proj.weight [D, in_chans, P, P], .bias [D]     cls_token [1, 1, D]    when has_class_token()
///   pos_embed [1, train_grid^2 (+1), D]                         when pos_embed is learned
///   blocks.I.norm1.weight [D], .bias [D]                        blocks.I.norm2.*      likewise
///   blocks.I.attn.qkv.weight [3 D, D], .bias [3 D]              blocks.I.attn.proj.weight [D, D], .bias [D]
///   blocks.I.mlp.fc1.weight [H, D], .bias [H]                   blocks.I.mlp.fc2.weight [D, H], .bias [D]
///   pos_block.J.proj.0.weight [D, 1, k, k], .bias [D]           the PEG after block peg.after[J]
///   norm.weight [D], .bias [D]                                  head.weight [num_classes, D], .bias [num_classes]
std::vector<TensorSpec> cpvt_schema(const Config& config);

/// True for the keys that training leaves in a checkpoint and that no forward pass reads; the only ones ever ignored.
bool is_training_only(std::string_view tensor_name);

}  // namespace cpvt
