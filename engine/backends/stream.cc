#include <utility>

#include "engine/backends/backend.h"

namespace cpvt {

std::shared_ptr<const std::byte> Stream::keep(std::vector<std::byte> tables) {
  const auto owner = std::make_shared<const std::vector<std::byte>>(std::move(tables));
  return {owner, owner->data()};
}

void Stream::begin(std::span<const ImageView> /*images*/, std::shared_ptr<void>& /*recording*/,
                   const std::function<void()>& enqueue) {
  enqueue();
}
void Stream::finish() {}

void Stream::push_range(const std::function<std::string()>& /*name*/) {}
void Stream::pop_range() {}

std::span<const float> Stream::read(const std::byte* value, int64_t rows, int64_t width) {
  return {reinterpret_cast<const float*>(value), static_cast<size_t>(rows * width)};
}

}  // namespace cpvt
