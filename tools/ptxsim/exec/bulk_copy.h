#pragma once

namespace ptxsim {

class Lowering;

void lower_bulk_copy(Lowering& l);  // cp.async.bulk, cp.async.bulk.tensor, cp.reduce.async.bulk and their groups

}  // namespace ptxsim
