// Version and messages.
#include "fasterseg_cpu.h"

extern "C" int32_t fasterseg_cpu_version(void) { return FASTERSEG_CPU_VERSION; }

extern "C" const char *fasterseg_cpu_message(int32_t result) {
  switch (result) {
  case FASTERSEG_CPU_OK:
    return "success";
  case FASTERSEG_CPU_NULL_POINTER:
    return "a pointer that is needed is NULL";
  case FASTERSEG_CPU_BAD_SIZE:
    return "batch, height, width or threads out of range";
  case FASTERSEG_CPU_BAD_VALUE:
    return "number of classes, alpha, mean or std out of range";
  case FASTERSEG_CPU_UNKNOWN_ISA:
    return "the library has no kernels of that instruction set";
  case FASTERSEG_CPU_MISSING_ISA:
    return "this CPU does not have that instruction set";
  case FASTERSEG_CPU_OUT_OF_MEMORY:
    return "out of memory";
  default:
    return "unknown result";
  }
}
