#include "base/thread.h"

#include <system_error>
#include <utility>

#include "base/error.h"

namespace cpvt {

std::thread start_thread(size_t number, size_t of, std::function<void()> body) {
  try {
    return std::thread(std::move(body));
  } catch (const std::system_error& e) {
    throw Error("cannot start thread {} of {}: {}", number, of, e.code().message());
  }
}

}  // namespace cpvt
