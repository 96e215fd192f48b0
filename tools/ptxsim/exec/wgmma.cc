#include "tools/ptxsim/exec/matrix.h"
namespace ptxsim {
void lower_wgmma(Lowering& l) { l.fail("wgmma is not supported yet"); }
}  // namespace ptxsim
