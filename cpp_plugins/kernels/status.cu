// Version of the library and the meaning of results.
#include "fasterseg_kernels.h"
#include "launch.h"

extern "C" int32_t fasterseg_kernels_version(void) { return FASTERSEG_KERNELS_VERSION; }

extern "C" const char *fasterseg_kernels_message(int32_t result) {
  switch (result) {
  case FASTERSEG_OK:
    return "success";
  case FASTERSEG_NULL_POINTER:
    return "a pointer that is needed is NULL";
  case FASTERSEG_BAD_SIZE:
    return "batch, height or width is out of range";
  case FASTERSEG_BAD_CHANNELS:
    return "the number of channels or classes, or the pitch, is out of range";
  case FASTERSEG_BAD_KIND:
    return "unknown type, layout, stride or flag";
  case FASTERSEG_BAD_ALIGNMENT:
    return "a pointer is not aligned as its field demands";
  case FASTERSEG_SMALL_WORKSPACE:
    return "the workspace is smaller than the query answers";
  default:
    return result > 0 ? fasterseg::launch_error(result) : "unknown status";
  }
}
