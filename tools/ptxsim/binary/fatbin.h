#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

/// What nvcc embeds in a host binary: containers with PTX texts and machine code for several architectures.
namespace ptxsim {

struct Image {
  enum class Kind : uint8_t { kPtx, kCubin } kind;
  uint32_t architecture;        // 80, 90…
  char feature = ' ';           // 'a' or 'f' of sm_90a; ' ' for none
  std::vector<std::byte> data;  // decompressed; a PTX text without its final zeros
  // With -rdc=true every translation unit keeps its PTX in a container of its own: 1, 2… for these, 0 for the wrapper's
  // (then only the linked machine code). A GPU's driver would link the units' PTX.
  uint32_t unit = 0;
};

/// All images of a fat binary: `wrapper` is what __cudaRegisterFatBinary is given (magic 0x466243b1, version 1 or 2),
/// or a container itself (magic 0xba55ed50) as cudaLibraryLoadData takes it. Throws Error naming what is wrong.
std::vector<Image> read_fatbin(const void* wrapper);

/// The image whose PTX this GPU should run: exactly its architecture with its feature first, then the newest PTX not
/// newer than the GPU. Throws Error, listing what there is, when there is none (built without code=compute_*).
const Image& choose_ptx(std::span<const Image> images, uint32_t architecture, char feature);
/// The machine code that lies beside it for the same GPU, for its resource figures; null when there is none.
const Image* choose_cubin(std::span<const Image> images, uint32_t architecture);

}  // namespace ptxsim
