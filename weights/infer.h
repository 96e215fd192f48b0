#pragma once

#include <string>
#include <vector>

#include "weights/config.h"
#include "weights/safetensors.h"

namespace cpvt {

/// The configuration that a weights file without one must have, from its tensors' names and shapes. What these leave
/// open is assumed, a sentence in `assumptions` each: heads of 64 channels; a PEG's place where its name does not tell
/// it (the J-th follows block J); no position encoding where there is none to be seen; layer_norm_eps; the preparation
/// of pictures. Throws Error, naming the tensor, where a tensor that is needed is missing or has an impossible shape.
Config infer_config(const SafetensorsFile& file, std::vector<std::string>& assumptions);

}  // namespace cpvt
