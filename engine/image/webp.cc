// WebP through libwebp.

#include <webp/decode.h>
#include <webp/demux.h>

#include <memory>
#include <utility>

#include "base/error.h"
#include "engine/image/exif.h"
#include "engine/image/formats.h"

namespace cpvt {

namespace {

struct DeleteDemuxer {
  void operator()(WebPDemuxer* demuxer) const { WebPDemuxDelete(demuxer); }
};

std::string_view reason(VP8StatusCode status) {
  switch (status) {
    case VP8_STATUS_OUT_OF_MEMORY:
      throw std::bad_alloc();
    case VP8_STATUS_UNSUPPORTED_FEATURE:
      return "it uses an unknown feature";
    case VP8_STATUS_SUSPENDED:
    case VP8_STATUS_NOT_ENOUGH_DATA:
      return "the frame's data ends early";
    default:
      return "the frame's data does not decode";
  }
}

/// The bytes of the first chunk of that name, which are the file's; none where it has no such chunk.
std::span<const uint8_t> chunk_of(const WebPDemuxer* demuxer, const char* name) {
  WebPChunkIterator chunk{};
  if (WebPDemuxGetChunk(demuxer, name, 1, &chunk) == 0) return {};
  const std::span<const uint8_t> bytes(chunk.chunk.bytes, chunk.chunk.size);
  WebPDemuxReleaseChunkIterator(&chunk);
  return bytes;
}

int orientation_of(const WebPDemuxer* demuxer) {
  const std::span<const uint8_t> xmp = chunk_of(demuxer, "XMP ");
  return told_orientation(chunk_of(demuxer, "EXIF"), {reinterpret_cast<const char*>(xmp.data()), xmp.size()});
}

/// Decodes a frame to its place on the canvas. Alpha is dropped.
void decode_frame(const EncodedImage& encoded, const WebPIterator& frame, Image& canvas) {
  WebPDecoderConfig config;
  if (WebPInitDecoderConfig(&config) == 0) throw Error("{}: libwebp is not the version it was built for", encoded.name);
  if (frame.x_offset < 0 || frame.y_offset < 0 || frame.width < 1 || frame.height < 1 ||
      frame.width > canvas.size.width - frame.x_offset || frame.height > canvas.size.height - frame.y_offset) {
    throw Error("{}: corrupt WebP: a frame of {}x{} at row {}, column {} lies outside of its {}x{} canvas",
                encoded.name, frame.height, frame.width, frame.y_offset, frame.x_offset, canvas.size.height,
                canvas.size.width);
  }
  // Straight into the canvas. libwebp refuses a frame that is larger than this memory.
  const size_t offset =
      static_cast<size_t>(frame.y_offset) * canvas.row_bytes() + static_cast<size_t>(frame.x_offset) * 3;
  config.output.colorspace = MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA = {.rgba = canvas.pixels.data() + offset,
                          .stride = static_cast<int>(canvas.row_bytes()),
                          .size = canvas.pixels.size() - offset};
  const VP8StatusCode status = WebPDecode(frame.fragment.bytes, frame.fragment.size, &config);
  WebPFreeDecBuffer(&config.output);
  if (status != VP8_STATUS_OK) throw Error("{}: corrupt WebP: {}", encoded.name, reason(status));
  if (config.input.width != frame.width || config.input.height != frame.height) {
    throw Error("{}: corrupt WebP: a frame declared as {}x{} holds {}x{}", encoded.name, frame.height, frame.width,
                config.input.height, config.input.width);
  }
}

}  // namespace

DecodedImage read_webp(const EncodedImage& encoded) {
  const WebPData data = {.bytes = encoded.data(), .size = encoded.bytes.size()};
  WebPDemuxState state = WEBP_DEMUX_PARSE_ERROR;
  const std::unique_ptr<WebPDemuxer, DeleteDemuxer> demuxer(WebPDemuxPartial(&data, &state));
  if (state == WEBP_DEMUX_PARSE_ERROR) throw Error("{}: corrupt WebP: its chunks do not fit together", encoded.name);
  if (demuxer == nullptr || state != WEBP_DEMUX_DONE) {
    throw Error("{}: truncated WebP: it ends before the picture is complete", encoded.name);
  }
  // The canvas begins black, and the first frame may cover a part of it only.
  DecodedImage out{make_image(checked_size(encoded, WebPDemuxGetI(demuxer.get(), WEBP_FF_CANVAS_HEIGHT),
                                           WebPDemuxGetI(demuxer.get(), WEBP_FF_CANVAS_WIDTH)),
                              3)};
  WebPIterator frame{};
  if (WebPDemuxGetFrame(demuxer.get(), 1, &frame) == 0) throw Error("{}: corrupt WebP: it has no frame", encoded.name);
  const std::unique_ptr<WebPIterator, void (*)(WebPIterator*)> release(&frame, WebPDemuxReleaseIterator);
  decode_frame(encoded, frame, out.image);
  out.orientation = orientation_of(demuxer.get());
  return out;
}

}  // namespace cpvt
