// Whatever the compiler takes for granted: SSE2 on x86-64.
#define FSG_KERNELS kBaseline
#define FSG_LANES 4
#define FSG_ROWS 4
#include "kernels.h"
