#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "tools/ptxsim/program/program.h"

namespace ptxsim {

/// Device address of a module's .global or .const variable, or what a pointer to one of its functions holds.
using SymbolAddress = std::function<std::optional<uint64_t>(const std::string& name)>;

/// Compiles a kernel and everything it may call. Throws Error, with kernel and line, for what it does not know.
/// `red_zones`: shared variables lie apart, so that who runs over the end of one does not come to the next.
Program compile(const ptx::Module& module, const ptx::Function& kernel, const SymbolAddress& address_of,
                bool red_zones);

/// Where a kernel's parameters lie in its parameter buffer; returns the buffer's size.
uint32_t place_parameters(const ptx::Function& kernel,
                          const std::function<void(uint32_t offset, uint32_t bytes)>& each);

std::string demangle(const std::string& name);

}  // namespace ptxsim
