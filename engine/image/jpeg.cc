// JPEG through libjpeg-turbo with its default settings (accurate integer DCT, smooth chroma upsampling), as in Pillow.

#include <cstdio>
// jpeglib.h needs FILE and size_t before it.
#include <jerror.h>
#include <jpeglib.h>

#include <algorithm>
#include <array>
#include <csetjmp>
#include <string>
#include <utility>

#include "base/error.h"
#include "engine/image/exif.h"
#include "engine/image/formats.h"

namespace cpvt {

namespace {

/// A libjpeg decompressor that reads from memory. libjpeg reports an error by a call that must not return: it jumps
/// back into `run`, so that no frame with a destructor is ever jumped over.
class Decompressor {
 public:
  explicit Decompressor(const EncodedImage& encoded) : name_(encoded.name) {
    info_.err = jpeg_std_error(&errors_);
    info_.client_data = this;
    errors_.error_exit = [](j_common_ptr info) {
      auto* self = static_cast<Decompressor*>(info->client_data);
      info->err->format_message(info, self->message_.data());
      std::longjmp(self->failed_, 1);
    };
    errors_.emit_message = [](j_common_ptr info, int level) {
      if (level >= 0) return;  // a trace
      auto* self = static_cast<Decompressor*>(info->client_data);
      if (info->err->num_warnings++ == 0) info->err->format_message(info, self->first_warning_.data());
    };
    run([](jpeg_decompress_struct& info) { jpeg_create_decompress(&info); });
    // The whole file is the buffer. When it is used up, the calls below say "suspended" and not, as libjpeg's own
    // memory source does, make up an end: a truncated file is to be noticed.
    source_.next_input_byte = encoded.data();
    source_.bytes_in_buffer = encoded.bytes.size();
    source_.init_source = [](j_decompress_ptr) {};
    source_.fill_input_buffer = [](j_decompress_ptr) -> boolean { return FALSE; };
    source_.skip_input_data = [](j_decompress_ptr info, long count) {
      if (count <= 0) return;
      const size_t skipped = std::min(static_cast<size_t>(count), info->src->bytes_in_buffer);
      info->src->next_input_byte += skipped;
      info->src->bytes_in_buffer -= skipped;
    };
    source_.resync_to_restart = jpeg_resync_to_restart;
    source_.term_source = [](j_decompress_ptr) {};
    info_.src = &source_;
  }

  ~Decompressor() { jpeg_destroy_decompress(&info_); }
  Decompressor(const Decompressor&) = delete;
  Decompressor& operator=(const Decompressor&) = delete;

  /// Calls libjpeg. `call` must not own anything: it may be left by a jump. Throws Error with libjpeg's message.
  template <class Call>
  void run(Call call) {
    if (setjmp(failed_) == 0) {
      call(info_);
    } else {
      throw Error("{}: corrupt JPEG: {}", name_, message_.data());
    }
  }

  jpeg_decompress_struct& info() { return info_; }

  /// libjpeg's first complaint about data that it could bridge, with their number; empty without one.
  std::string warning() const {
    if (errors_.num_warnings == 0) return {};
    return fmt::format("{}: damaged JPEG, read as far as it goes: {} ({} such places)", name_, first_warning_.data(),
                       errors_.num_warnings);
  }

 private:
  std::string_view name_;
  jpeg_decompress_struct info_{};
  jpeg_error_mgr errors_{};
  jpeg_source_mgr source_{};
  std::jmp_buf failed_{};
  std::array<char, JMSG_LENGTH_MAX> message_{};
  std::array<char, JMSG_LENGTH_MAX> first_warning_{};
};

/// Both lie in APP1 segments: the first EXIF, and the last XMP.
int orientation_of(const jpeg_decompress_struct& info) {
  using namespace std::string_view_literals;
  constexpr std::string_view exif_name = "Exif\0\0"sv;
  constexpr std::string_view xmp_name = "http://ns.adobe.com/xap/1.0/\0"sv;
  std::span<const uint8_t> exif;
  std::string_view xmp;
  for (const jpeg_marker_struct* marker = info.marker_list; marker != nullptr; marker = marker->next) {
    const std::string_view data(reinterpret_cast<const char*>(marker->data), marker->data_length);
    if (data.starts_with(exif_name) && exif.empty()) exif = {marker->data, marker->data_length};
    if (data.starts_with(xmp_name)) xmp = data.substr(xmp_name.size());
  }
  return told_orientation(exif, xmp);
}

/// x * y / 255, rounded, for 0…255.
uint32_t scaled_byte(uint32_t x, uint32_t y) {
  const uint32_t product = x * y + 128;
  return ((product >> 8U) + product) >> 8U;
}

/// One pixel of the decoder's channels to RGB.
void to_rgb(const JSAMPLE* from, int channels, uint8_t* rgb) {
  if (channels == 1) {
    rgb[0] = rgb[1] = rgb[2] = from[0];
    return;
  }
  // CMYK. Adobe stores ink inverted, and Pillow takes every CMYK file to be Adobe's: a sample is how much light passes.
  const uint32_t light = from[3];
  for (int c = 0; c < 3; ++c) rgb[c] = static_cast<uint8_t>(light - scaled_byte(255U - from[c], light));
}

}  // namespace

DecodedImage read_jpeg(const EncodedImage& encoded) {
  Decompressor decompressor(encoded);
  jpeg_decompress_struct& info = decompressor.info();

  int header = JPEG_SUSPENDED;
  decompressor.run([&header](jpeg_decompress_struct& info) {
    jpeg_save_markers(&info, JPEG_APP0 + 1, 0xFFFF);
    header = jpeg_read_header(&info, TRUE);
  });
  if (header != JPEG_HEADER_OK) throw Error("{}: truncated JPEG: it ends within the header", encoded.name);
  switch (info.num_components) {
    case 1:
      info.out_color_space = JCS_GRAYSCALE;
      break;
    case 3:
      info.out_color_space = JCS_RGB;
      break;
    case 4:
      info.out_color_space = JCS_CMYK;  // of YCCK too
      break;
    default:
      throw Error("{}: expected a JPEG of 1, 3 or 4 components, found {}", encoded.name, info.num_components);
  }
  const ImageSize size = checked_size(encoded, info.image_height, info.image_width);
  DecodedImage out{make_image(size, 3), orientation_of(info)};

  bool started = false;
  decompressor.run([&started](jpeg_decompress_struct& info) { started = jpeg_start_decompress(&info) != FALSE; });
  // A progressive file is read whole at this point.
  if (!started) throw Error("{}: truncated JPEG: it ends before the picture is complete", encoded.name);

  // As many rows at a time as libjpeg can give.
  constexpr int most_rows = 16;
  const int channels = info.output_components;
  const auto width = static_cast<size_t>(size.width);
  std::vector<JSAMPLE> other_channels(channels == 3 ? 0 : most_rows * width * static_cast<size_t>(channels));
  for (int y = 0; y < size.height;) {
    const int wanted = std::min(most_rows, size.height - y);
    std::array<JSAMPROW, most_rows> rows{};
    for (int i = 0; i < wanted; ++i) {
      rows.at(static_cast<size_t>(i)) =
          channels == 3 ? out.image.row(y + i)
                        : other_channels.data() + static_cast<size_t>(i) * width * static_cast<size_t>(channels);
    }
    int got = 0;
    decompressor.run([&](jpeg_decompress_struct& info) {
      got = static_cast<int>(jpeg_read_scanlines(&info, rows.data(), static_cast<JDIMENSION>(wanted)));
    });
    if (got == 0) throw Error("{}: truncated JPEG: it ends in row {} of {}", encoded.name, y, size.height);
    if (channels != 3) {
      const JSAMPLE* from = other_channels.data();
      uint8_t* to = out.image.row(y);
      for (size_t i = 0; i < static_cast<size_t>(got) * width; ++i) {
        to_rgb(from + i * static_cast<size_t>(channels), channels, to + i * 3);
      }
    }
    y += got;
  }
  // What follows the rows must be sound. That it is missing is no error here, as in Pillow, but the decoder has mostly
  // noticed before: it reads ahead.
  decompressor.run([](jpeg_decompress_struct& info) { jpeg_finish_decompress(&info); });
  if (std::string warning = decompressor.warning(); !warning.empty()) out.image.warnings.push_back(std::move(warning));
  return out;
}

}  // namespace cpvt
