#include "ops/kernel_table.h"

#include <algorithm>

namespace octavo::ops {
namespace {
/// Filled by the constructors of function-local statics, on one thread (register_all) or under their init locks.
std::vector<const KernelTableBase*>& tables() {
  static std::vector<const KernelTableBase*> list;
  return list;
}
}  // namespace

KernelTableBase::KernelTableBase(std::string_view op) : op_(op) { tables().push_back(this); }

std::vector<const KernelTableBase*> KernelTableBase::all() {
  auto list = tables();
  std::sort(list.begin(), list.end(), [](const auto* a, const auto* b) { return a->op() < b->op(); });
  return list;
}

}  // namespace octavo::ops
