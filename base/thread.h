#pragma once

#include <cstddef>
#include <functional>
#include <thread>

namespace cpvt {

/// Starts a thread that runs `body`. Throws Error where the system has no more of them: "cannot start thread 3 of 8:
/// …". Whoever has started others must end and join them then, before it lets the Error pass.
std::thread start_thread(size_t number, size_t of, std::function<void()> body);

}  // namespace cpvt
