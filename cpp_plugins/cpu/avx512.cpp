// AVX-512 F, BW, DQ and VL: 32 registers of 16 floats.
#define FSG_KERNELS kAvx512
#define FSG_LANES 16
#define FSG_ROWS 9
#include "kernels.h"
