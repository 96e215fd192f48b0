#include <atomic>
#include <cstring>
#include <mutex>

#include "tools/ptxsim/error.h"
#include "tools/ptxsim/machine/machine.h"
#include "tools/ptxsim/program/compile.h"

namespace ptxsim {

struct Kernel::State {
  LoadedModule* module = nullptr;
  const ptx::Function* function = nullptr;
  std::vector<Kernel::Parameter> parameters;
  uint32_t parameter_bytes = 0;
  KernelResources resources;
  bool has_machine_code = false;
  uint32_t shared_bytes = 0, local_bytes = 0;
  std::mutex compiling;
  std::unique_ptr<Program> program;
};

struct LoadedModule::State {
  Machine* machine = nullptr;
  std::string source;
  ptx::Module text;
  std::map<std::string, Allocation*, std::less<>> variables;
  std::map<std::string, uint64_t, std::less<>> functions;  // what pointers to them hold
  std::map<std::string, std::unique_ptr<Kernel>, std::less<>> kernels;

  void number_functions();
};

namespace {

uint64_t rounded(uint64_t value, uint64_t alignment) { return (value + alignment - 1) / alignment * alignment; }

uint32_t align_of(const ptx::Variable& v) { return v.align != 0 ? v.align : std::max<uint32_t>(1, v.type.bytes()); }

}  // namespace

/// Kernels pass pointers to functions on through memory, so their numbers belong to the module, not to a kernel; and no
/// two modules share one, so that none calls another's function for its own.
void LoadedModule::State::number_functions() {
  static std::atomic<uint64_t> last{0};
  for (const ptx::Function& f : text.functions) {
    if (!f.entry && functions.count(f.name) == 0) functions[f.name] = kWindowFunction + ++last;
  }
  for (const auto& [alias, names] : text.aliases) {
    if (names.empty()) continue;
    if (const auto f = functions.find(names.front()); f != functions.end()) functions[alias] = f->second;
  }
}

LoadedModule::LoadedModule(Machine& machine, std::string ptx, std::span<const std::byte> cubin)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.machine = &machine;
  s.source = std::move(ptx);
  s.text = ptx::parse(s.source);

  for (const ptx::Variable& v : s.text.variables) {
    if (v.space != ptx::Space::kGlobal && v.space != ptx::Space::kConst) continue;
    if (v.external) continue;
    const auto kind = v.managed ? MemoryKind::kManaged : MemoryKind::kModule;
    Allocation* a = machine.memory().allocate(kind, std::max<uint64_t>(1, v.bytes()), v.name, align_of(v));
    if (a == nullptr) throw Error("no memory for variable {} of {} bytes", v.name, v.bytes());
    a->read_only = v.space == ptx::Space::kConst;
    std::memset(a->host, 0, v.bytes());
    s.variables[v.name] = a;
  }
  s.number_functions();
  // Initial values may name functions and other variables, wherever they stand.
  for (const ptx::Variable& v : s.text.variables) {
    const auto at = s.variables.find(v.name);
    if (at == s.variables.end()) continue;
    const uint32_t size = v.type.bytes();
    for (size_t i = 0; i < v.initial.size() && (i + 1) * size <= v.bytes(); ++i) {
      const ptx::Initialiser& init = v.initial[i];
      uint64_t bits = init.bits;
      if (!init.symbol.empty()) {
        const auto address = address_of(init.symbol);
        if (!address) throw Error("variable {} is initialised with the unknown symbol {}", v.name, init.symbol);
        bits = *address + static_cast<uint64_t>(init.offset);
        if (init.mask_byte != 0) bits = bits >> (8 * (init.mask_byte - 1)) & 0xff;
      }
      std::memcpy(at->second->host + i * size, &bits, std::min<size_t>(size, 8));
    }
    machine.host_wrote(at->second->base, v.bytes());
  }

  std::map<std::string, KernelResources> resources;
  if (!cubin.empty()) resources = read_cubin(cubin);
  for (const ptx::Function& f : s.text.functions) {
    if (!f.entry) continue;
    auto kernel = std::make_unique<Kernel>();
    kernel->state_ = std::make_shared<Kernel::State>();
    Kernel::State& k = *kernel->state_;
    k.module = this;
    k.function = &f;
    k.parameter_bytes = place_parameters(f, [&](uint32_t offset, uint32_t bytes) {
      k.parameters.push_back({offset, bytes});
    });
    if (const auto r = resources.find(f.name); r != resources.end()) {
      k.resources = r->second;
      k.has_machine_code = true;
    }
    for (const ptx::Variable& v : f.variables) {
      if (v.space == ptx::Space::kLocal)
        k.local_bytes = static_cast<uint32_t>(rounded(k.local_bytes, align_of(v)) + v.bytes());
      if (v.space == ptx::Space::kShared && !v.unsized) {
        k.shared_bytes = static_cast<uint32_t>(rounded(k.shared_bytes, align_of(v)) + v.bytes());
      }
    }
    s.kernels[f.name] = std::move(kernel);
  }
}

LoadedModule::~LoadedModule() {
  for (const auto& [name, allocation] : state_->variables) state_->machine->memory().free(allocation);
}

Kernel* LoadedModule::kernel(std::string_view mangled) {
  const auto at = state_->kernels.find(mangled);
  return at == state_->kernels.end() ? nullptr : at->second.get();
}

std::vector<Kernel*> LoadedModule::kernels() {
  std::vector<Kernel*> all;
  for (const auto& [name, kernel] : state_->kernels) all.push_back(kernel.get());
  return all;
}

Allocation* LoadedModule::variable(std::string_view name) {
  const auto at = state_->variables.find(name);
  return at == state_->variables.end() ? nullptr : at->second;
}

std::optional<uint64_t> LoadedModule::address_of(std::string_view name) const {
  if (const auto v = state_->variables.find(name); v != state_->variables.end()) return v->second->base;
  if (const auto f = state_->functions.find(name); f != state_->functions.end()) return f->second;
  return {};
}

const ptx::Module& LoadedModule::text() const { return state_->text; }
Machine& LoadedModule::machine() const { return *state_->machine; }

const std::string& Kernel::name() const { return state_->function->name; }
std::string Kernel::readable_name() const { return demangle(name()); }
const ptx::Function& Kernel::function() const { return *state_->function; }
std::span<const Kernel::Parameter> Kernel::parameters() const { return state_->parameters; }
uint32_t Kernel::parameter_bytes() const { return state_->parameter_bytes; }
const KernelResources& Kernel::resources() const { return state_->resources; }
bool Kernel::has_machine_code() const { return state_->has_machine_code; }

uint32_t Kernel::static_shared_bytes() const {
  if (state_->program != nullptr) return state_->program->shared_static_bytes;
  return state_->has_machine_code ? state_->resources.shared_bytes : state_->shared_bytes;
}

uint32_t Kernel::local_bytes() const { return state_->local_bytes; }

uint32_t Kernel::max_threads() const {
  const auto limit = static_cast<uint32_t>(state_->module->machine().gpu().max_threads_per_block);
  uint32_t bound = limit;
  if (state_->function->max_threads != 0) bound = std::min(bound, state_->function->max_threads);
  if (state_->resources.registers != 0) {
    const Gpu& gpu = state_->module->machine().gpu();
    const int per_warp = static_cast<int>(
        rounded(uint64_t{state_->resources.registers} * kLanes, static_cast<uint64_t>(gpu.register_unit)));
    bound = std::min(bound, static_cast<uint32_t>(gpu.registers_per_block / per_warp) * kLanes);
  }
  return bound;
}

LoadedModule& Kernel::module() const { return *state_->module; }

const Program& Kernel::program() {
  const std::lock_guard lock(state_->compiling);
  if (state_->program == nullptr) {
    const LoadedModule& module = *state_->module;
    const SymbolAddress address_of = [&module](const std::string& name) { return module.address_of(name); };
    state_->program = std::make_unique<Program>(
        compile(module.text(), *state_->function, address_of, module.machine().options().check));
  }
  return *state_->program;
}

}  // namespace ptxsim
