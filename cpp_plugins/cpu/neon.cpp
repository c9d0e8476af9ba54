// NEON of 64-bit ARM: 32 registers of 4 floats.
#define FSG_KERNELS kNeon
#define FSG_LANES 4
#define FSG_ROWS 9
#include "kernels.h"
