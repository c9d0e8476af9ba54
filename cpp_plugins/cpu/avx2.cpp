// AVX2 and FMA: 16 registers of 8 floats.
#define FSG_KERNELS kAvx2
#define FSG_LANES 8
#define FSG_ROWS 4
#include "kernels.h"
