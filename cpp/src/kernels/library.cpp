// The operator library torch.ops.hemostat; each kernel defines its operators in a fragment of it.
#include <torch/library.h>

TORCH_LIBRARY(hemostat, m) { (void)m; }
