#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/thread_pool.h"
#include "kernels/token_grid.h"

namespace cpvt::cpu {

/// y = softmax(scale q k^T) v for every head, each image attending to its own rows (class token and patches alike).
/// qkv: rows of [3, heads, head_dim] as timm's qkv linear leaves them, read in place. y: rows of [heads, head_dim].
/// Strides in floats: stride >= 3*heads*head_dim, y_stride >= heads*head_dim. Any head_dim >= 1. y does not overlap
/// qkv. Only rows that belong to an image are written. workspace: attention_workspace_floats(...) floats; never N x N.
void attention(const float* qkv, int64_t stride, int heads, int head_dim, float scale,
               std::span<const TokenGrid> images, float* y, int64_t y_stride, float* workspace, ThreadPool& pool);

/// Independent of the images: each thread holds one tile of queries against one tile of keys.
int64_t attention_workspace_floats(int head_dim, int threads);

}  // namespace cpvt::cpu
