#pragma once

namespace ptxsim {

class Lowering;

void lower_bulk_copy(Lowering& l);    // cp.async.bulk, cp.async.bulk.tensor, cp.reduce.async.bulk and their groups
void lower_store_async(Lowering& l);  // st.async, red.async

}  // namespace ptxsim
